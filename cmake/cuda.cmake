# The CUDA backend, with the option ORRERY_CUDA (presets cuda-release, cuda-debug):
# kernels/cuda/*.cu and learners/cuda/*.cu become part of orrery_kernels, core/cuda_api.cc of
# orrery_core. Without the option, and without ORRERY_CUDA_CHECK, nothing here does anything, and no
# compiler of CUDA is looked for.
option(ORRERY_CUDA_CHECK "In a build without CUDA: define the target cuda_check, which tools/check.sh builds" OFF)
# Code of 8.0 runs on every 8.x, code of 9.0 on H100 and H200; the PTX of 9.0 is compiled by the
# driver of a later GPU, when a program first starts there.
set(ORRERY_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "What kernels are compiled for, as CMAKE_CUDA_ARCHITECTURES has it")

if(ORRERY_CUDA OR ORRERY_CUDA_CHECK)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(ORRERY_NVCC nvcc PATHS /usr/local/cuda/bin)
    set(CMAKE_CUDA_COMPILER ${ORRERY_NVCC})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES ${ORRERY_CUDA_ARCHITECTURES})
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
  # Not -G: it takes registers that launches do not have. Line numbers are for compute-sanitizer.
  set(CMAKE_CUDA_FLAGS_DEBUG "-g -O3 -lineinfo")
  enable_language(CUDA)
  # CMake 3.25 does not know that every nvcc of these days takes it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  find_package(CUDAToolkit REQUIRED)
endif()
if(ORRERY_CUDA OR ORRERY_CUDA_CHECK)
  string(REPLACE ";" " " built_for "${ORRERY_CUDA_ARCHITECTURES}")
  set_source_files_properties(core/cuda_api.cc PROPERTIES COMPILE_DEFINITIONS "ORRERY_CUDA_ARCHITECTURES=\"${built_for}\"")
endif()
if(ORRERY_CUDA)
  target_compile_definitions(orrery_flags INTERFACE ORRERY_CUDA)
endif()

# The objects of all .cu. tools/lint/ptx_lint.py runs the compiler, so that no build has a
# kernel with other bits than the CPU's, or one that spills.
function(orrery_cuda_kernels)
  file(GLOB sources CONFIGURE_DEPENDS kernels/cuda/*.cu learners/cuda/*.cu)
  set(lint ${CMAKE_SOURCE_DIR}/tools/lint/ptx_lint.py)
  set_source_files_properties(${sources} PROPERTIES OBJECT_DEPENDS ${lint})
  add_library(orrery_kernels_cuda OBJECT ${ARGN} ${sources})
  set_target_properties(orrery_kernels_cuda PROPERTIES
    CUDA_COMPILER_LAUNCHER "python3;${lint};--compile")
  target_compile_definitions(orrery_kernels_cuda PRIVATE ORRERY_CUDA FMT_USE_CONSTEXPR=1)
  target_include_directories(orrery_kernels_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  # docs/numerics.md: a fused multiply-add is always written as one. The warning 554 is of fmt's
  # headers.
  target_compile_options(orrery_kernels_cuda PRIVATE -fmad=false --expt-relaxed-constexpr -Werror=all-warnings
                         -diag-suppress=554 -Xcompiler=-ffp-contract=off)
endfunction()

# To be called once all libraries are there.
function(orrery_cuda_backend)
  if(ORRERY_CUDA)
    target_link_libraries(orrery_core PUBLIC CUDA::cudart_static)
    orrery_cuda_kernels()
    target_sources(orrery_kernels PRIVATE $<TARGET_OBJECTS:orrery_kernels_cuda>)
  elseif(ORRERY_CUDA_CHECK)
    orrery_cuda_twin()
  endif()
endfunction()

# Target cuda_check: the command with the CUDA backend, in a build without it. Only sources that see
# core/cuda_api.h are compiled once more; their objects stand before the libraries, which then have
# nothing left to give for them (if they had, the linker would name a symbol defined twice).
function(orrery_cuda_twin)
  orrery_cuda_kernels(EXCLUDE_FROM_ALL)
  set(see_cuda "#include \"core/cuda_api\\.h\"")
  foreach(ending h cc)
    foreach(folder core kernels comm models storage rollout actors learners launch experiments tools)
      file(GLOB sources CONFIGURE_DEPENDS RELATIVE ${CMAKE_SOURCE_DIR} ${folder}/*.${ending})
      foreach(source ${sources})
        file(STRINGS ${source} sees REGEX "${see_cuda}" LIMIT_COUNT 1)
        if(NOT sees)
          continue()
        elseif(ending STREQUAL "h")
          string(APPEND see_cuda "|#include \"${source}\"")
        else()
          list(APPEND twins ${source})
        endif()
      endforeach()
    endforeach()
  endforeach()
  add_library(orrery_cuda_twins OBJECT EXCLUDE_FROM_ALL ${twins})
  target_compile_definitions(orrery_cuda_twins PRIVATE ORRERY_CUDA)
  target_link_libraries(orrery_cuda_twins PRIVATE orrery_tools orrery_flags CUDA::cudart_static)
  add_executable(cuda_check EXCLUDE_FROM_ALL tools/main.cc $<TARGET_OBJECTS:orrery_cuda_twins>
                 $<TARGET_OBJECTS:orrery_kernels_cuda>)
  target_link_libraries(cuda_check PRIVATE orrery_tools orrery_flags CUDA::cudart_static)
  target_compile_definitions(cuda_check PRIVATE ORRERY_VERSION="orrery ${PROJECT_VERSION}")
  set_target_properties(cuda_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  # clang-tidy reads a source once, and none of nvcc's commands.
  set_target_properties(cuda_check orrery_cuda_twins orrery_kernels_cuda PROPERTIES EXPORT_COMPILE_COMMANDS OFF)
endfunction()
