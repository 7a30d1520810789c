# Flags from outside ($CXXFLAGS, -DCMAKE_CXX_FLAGS) that would break the numerics contract, or the
# promise that one build runs on every CPU, are refused rather than obeyed.
if("${CMAKE_CXX_FLAGS} ${CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}}" MATCHES "(-march=[^ ]*|-mcpu=[^ ]*|-ffast-math|-Ofast|-ffp-contract=(fast|on))")
  message(FATAL_ERROR "compiler flag ${CMAKE_MATCH_1}: results must have the same bits on every machine and the kernels choose "
                      "their instruction set at run time; configure without it (docs/numerics.md)")
endif()

# One static library a folder, made of all its sources; warnings are errors everywhere.
add_library(orrery_flags INTERFACE)
target_include_directories(orrery_flags INTERFACE ${CMAKE_SOURCE_DIR})
# -ffp-contract=off and no fast-math: docs/numerics.md. A fused multiply-add is always written as
# one.
target_compile_options(orrery_flags INTERFACE -Wall -Wextra -Werror -Wshadow -Wno-missing-field-initializers
                       -ffp-contract=off)
if(ORRERY_SANITIZE)
  target_compile_options(orrery_flags INTERFACE -fsanitize=${ORRERY_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(orrery_flags INTERFACE -fsanitize=${ORRERY_SANITIZE})
endif()

# A check at every pointer makes clang need five times as long for the kernels; AddressSanitizer
# sees the accesses.
add_library(orrery_kernel_flags INTERFACE)
if(ORRERY_SANITIZE MATCHES "undefined")
  target_compile_options(orrery_kernel_flags INTERFACE -fno-sanitize=null,alignment,object-size,pointer-overflow,vptr)
endif()

# Folders whose code reads what comes from outside. libFuzzer's counters in the kernels would only
# slow their tests.
set(ORRERY_FUZZED core comm text config models storage rollout actors launch experiments)
if(ORRERY_FUZZ AND NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "ORRERY_FUZZ needs clang (libFuzzer); configure with: cmake --preset asan-ubsan")
endif()

function(orrery_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(NOT ORRERY_CUDA)
    list(FILTER sources EXCLUDE REGEX "/core/cuda_api\\.cc$")
  endif()
  if(sources)
    add_library(orrery_${name} STATIC ${sources})
    target_link_libraries(orrery_${name} PUBLIC ${ARG_DEPENDS} PRIVATE orrery_flags)
    if(name STREQUAL "kernels")
      target_link_libraries(orrery_${name} PRIVATE orrery_kernel_flags)  # behind orrery_flags: the last word counts
    endif()
    if(ORRERY_FUZZ AND name IN_LIST ORRERY_FUZZED)
      target_compile_options(orrery_${name} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
  else()
    add_library(orrery_${name} INTERFACE)
    target_link_libraries(orrery_${name} INTERFACE ${ARG_DEPENDS})
  endif()
endfunction()

# Generated code is compiled without our warnings and included as a system header.
function(orrery_proto name)
  file(GLOB protos CONFIGURE_DEPENDS ${name}/*.proto)
  set(out ${CMAKE_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out}/${name})
  foreach(proto ${protos})
    get_filename_component(stem ${proto} NAME_WE)
    add_custom_command(
      OUTPUT ${out}/${name}/${stem}.pb.cc ${out}/${name}/${stem}.pb.h
      COMMAND protobuf::protoc --cpp_out=${out} -I ${CMAKE_SOURCE_DIR} ${name}/${stem}.proto
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${proto})
    list(APPEND generated ${out}/${name}/${stem}.pb.cc)
  endforeach()
  add_library(orrery_${name} STATIC ${generated})
  target_include_directories(orrery_${name} SYSTEM PUBLIC ${out})
  target_link_libraries(orrery_${name} PUBLIC protobuf::libprotobuf)
  if(ORRERY_SANITIZE)
    target_compile_options(orrery_${name} PRIVATE -fsanitize=${ORRERY_SANITIZE})
  endif()
endfunction()
