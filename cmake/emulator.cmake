# The CUDA backend on a CPU (docs/cuda.md): kernels/cuda/*.cu, learners/cuda/*.cu and
# core/cuda_api.cc compiled against tests/gpu/emulator, and what of core, kernels and learners asks whether there is a CUDA backend compiled as
# in a CUDA build. These objects stand before the libraries on a link line, so that the libraries'
# own are left out; all others are the same. None of it is in bin/orrery.
function(orrery_emulator)
  if(ORRERY_CUDA OR ORRERY_SANITIZE)  # which have a backend, or instrument accesses themselves
    return()
  endif()
  file(GLOB cuda RELATIVE ${CMAKE_SOURCE_DIR} CONFIGURE_DEPENDS
       kernels/cuda/*.cu kernels/cuda/*.cuh learners/cuda/*.cu)
  orrery_emulated_objects(orrery_emulated_kernels ${cuda})

  file(GLOB host CONFIGURE_DEPENDS core/*.cc kernels/*.cc learners/token_loss.cc tests/gpu/emulator/*.cc)
  list(FILTER host EXCLUDE REGEX "_test\\.cc$")
  add_library(orrery_emulated_host OBJECT EXCLUDE_FROM_ALL ${host})
  target_include_directories(orrery_emulated_host PRIVATE tests/gpu/emulator)
  target_compile_definitions(orrery_emulated_host PRIVATE ORRERY_CUDA ORRERY_EMULATED)
  target_link_libraries(orrery_emulated_host PRIVATE orrery_core orrery_kernels orrery_flags)

  add_executable(orrery-emulated $<TARGET_OBJECTS:orrery>)
  target_link_libraries(orrery-emulated PRIVATE orrery_tools orrery_flags)
  orrery_link_emulated(orrery-emulated)
  set_target_properties(orrery-emulated PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin
                        LINKER_LANGUAGE CXX)
endfunction()

# Object library `name` of .cu and .cuh files, rewritten.
function(orrery_emulated_objects name)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  set(emulator ${CMAKE_SOURCE_DIR}/tests/gpu/emulator)
  set(rewritten ${CMAKE_BINARY_DIR}/emulated)
  set(sources)
  foreach(source ${ARGN})
    string(REGEX REPLACE "\\.cu$" ".cc" to ${rewritten}/${source})
    get_filename_component(folder ${to} DIRECTORY)
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${to}
      COMMAND ${Python3_EXECUTABLE} ${emulator}/host_source.py ${source} ${to}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DEPENDS ${source} ${emulator}/host_source.py)
    list(APPEND sources ${to})
  endforeach()
  add_library(${name} OBJECT EXCLUDE_FROM_ALL ${sources})
  target_include_directories(${name} PRIVATE ${rewritten} ${emulator} ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name} PRIVATE fmt::fmt spdlog::spdlog)
  target_compile_definitions(${name} PRIVATE ORRERY_CUDA ORRERY_EMULATED)
  # -w: what g++ says of CUDA's own idioms. The sanitizers' calls are the emulator's
  # (callbacks.cc); their libraries are not linked.
  target_compile_options(${name} PRIVATE -w -ffp-contract=off -fsanitize=thread -fsanitize=alignment
                         -fno-sanitize-recover=all --param=tsan-instrument-func-entry-exit=0)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")  # a call of libm for each multiply-add, without it
    target_compile_options(${name} PRIVATE -mavx2 -mfma)
  endif()
endfunction()

# Gives a program that links our libraries the emulated backend. Of inline functions that several
# objects have, the linker takes the first: the emulator's own code must not get those whose accesses
# are watched.
function(orrery_link_emulated target)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:orrery_emulated_host> $<TARGET_OBJECTS:orrery_emulated_kernels> ${ARGN})
endfunction()
