# The CUDA backend on a CPU (docs/cuda.md): kernels/cuda/*.cu and core/cuda_api.cc compiled against
# tests/gpu/emulator, and what of core and kernels asks whether there is a CUDA backend compiled as
# in a CUDA build. These objects stand before the libraries on a link line, so that the libraries'
# own are left out; all others are the same. None of it is in bin/orrery.
function(orrery_emulator)
  if(ORRERY_CUDA OR ORRERY_SANITIZE)  # which have a backend, or instrument accesses themselves
    return()
  endif()
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(emulator ${CMAKE_SOURCE_DIR}/tests/gpu/emulator)
  set(rewritten ${CMAKE_BINARY_DIR}/emulated)
  file(GLOB cuda RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS kernels/cuda/*.cu kernels/cuda/*.cuh)
  foreach(source ${cuda})
    string(REGEX REPLACE "\\.cu$" ".cc" to ${rewritten}/${source})
    add_custom_command(OUTPUT ${to}
      COMMAND ${Python3_EXECUTABLE} ${emulator}/host_source.py ${source} ${to}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DEPENDS ${source} ${emulator}/host_source.py)
    list(APPEND kernels ${to})
  endforeach()
  add_library(orrery_emulated_kernels OBJECT EXCLUDE_FROM_ALL ${kernels})
  target_include_directories(orrery_emulated_kernels PRIVATE ${rewritten} ${emulator} ${CMAKE_SOURCE_DIR})
  target_link_libraries(orrery_emulated_kernels PRIVATE fmt::fmt spdlog::spdlog)
  target_compile_definitions(orrery_emulated_kernels PRIVATE ORRERY_CUDA ORRERY_EMULATED)
  # -w: what g++ says of CUDA's own idioms. The sanitizers' calls are the emulator's
  # (callbacks.cc); their libraries are not linked.
  target_compile_options(orrery_emulated_kernels PRIVATE -w -ffp-contract=off -fsanitize=thread
    -fsanitize=alignment -fno-sanitize-recover=all --param=tsan-instrument-func-entry-exit=0)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")  # a call of libm for each multiply-add, without it
    target_compile_options(orrery_emulated_kernels PRIVATE -mavx2 -mfma)
  endif()

  file(GLOB host CONFIGURE_DEPENDS core/*.cc kernels/*.cc tests/gpu/emulator/*.cc)
  list(FILTER host EXCLUDE REGEX "_test\\.cc$")
  add_library(orrery_emulated_host OBJECT EXCLUDE_FROM_ALL ${host})
  target_include_directories(orrery_emulated_host PRIVATE ${emulator})
  target_compile_definitions(orrery_emulated_host PRIVATE ORRERY_CUDA ORRERY_EMULATED)
  target_link_libraries(orrery_emulated_host PRIVATE orrery_core orrery_kernels orrery_flags)

  add_executable(orrery-emulated $<TARGET_OBJECTS:orrery>)
  target_link_libraries(orrery-emulated PRIVATE orrery_tools orrery_flags)
  orrery_link_emulated(orrery-emulated)
  set_target_properties(orrery-emulated PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin
                        LINKER_LANGUAGE CXX)
endfunction()

# Gives a program that links our libraries the emulated backend.
function(orrery_link_emulated target)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:orrery_emulated_kernels> $<TARGET_OBJECTS:orrery_emulated_host>)
endfunction()
