# The CUDA backend, with the option ORRERY_CUDA (preset cuda-release): kernels/cuda/*.cu become
# part of orrery_kernels, core/cuda_api.cc of orrery_core. Without the option nothing here does
# anything, and no compiler of CUDA is looked for.
if(ORRERY_CUDA)
  if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    find_program(ORRERY_NVCC nvcc PATHS /usr/local/cuda/bin)
    set(CMAKE_CUDA_COMPILER ${ORRERY_NVCC})
  endif()
  set(CMAKE_CUDA_ARCHITECTURES 90-real)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
  set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
  enable_language(CUDA)
  # CMake 3.25 does not know that every nvcc of these days takes it.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  find_package(CUDAToolkit REQUIRED)
  target_compile_definitions(orrery_flags INTERFACE ORRERY_CUDA)
endif()

# To be called once orrery_core and orrery_kernels are there.
function(orrery_cuda_backend)
  if(NOT ORRERY_CUDA)
    return()
  endif()
  target_link_libraries(orrery_core PUBLIC CUDA::cudart_static)
  file(GLOB sources CONFIGURE_DEPENDS kernels/cuda/*.cu)
  add_library(orrery_kernels_cuda OBJECT ${sources})
  target_compile_definitions(orrery_kernels_cuda PRIVATE ORRERY_CUDA FMT_USE_CONSTEXPR=1)
  target_include_directories(orrery_kernels_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  # docs/numerics.md: a fused multiply-add is always written as one. The warning 554 is of fmt's
  # headers.
  target_compile_options(orrery_kernels_cuda PRIVATE -fmad=false --expt-relaxed-constexpr
                         -diag-suppress=554 -Xcompiler=-ffp-contract=off)
  target_sources(orrery_kernels PRIVATE $<TARGET_OBJECTS:orrery_kernels_cuda>)
endfunction()
