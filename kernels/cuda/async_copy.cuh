// Copies from global to shared memory that go on while their thread computes. The
// emulator (tests/gpu/emulator) has a twin of each.
#pragma once

#include <cuda_runtime.h>

namespace orrery::kernels::cuda {

/// kBytes of 4, 8 or 16, to which both addresses are aligned.
template <int kBytes>
__device__ inline void copy_async(void* to, const void* from) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(shared), "l"(from), "n"(kBytes)
               : "memory");
#elif defined(ORRERY_EMULATED)
  simt::copy_async(to, from, kBytes);
#endif
}

/// Ends a group of copies: those of this thread since the last group.
__device__ inline void end_copy_group() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#elif defined(ORRERY_EMULATED)
  simt::end_copy_group();
#endif
}

/// This thread's copies have arrived, save those of its last kLater groups. Other
/// threads see them after __syncthreads().
template <int kLater>
__device__ inline void wait_for_groups() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kLater) : "memory");
#elif defined(ORRERY_EMULATED)
  simt::wait_for_copies(kLater);
#endif
}

/// All of this thread's copies have arrived. Other threads see them after
/// __syncthreads().
__device__ inline void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;\n" ::: "memory");
#elif defined(ORRERY_EMULATED)
  simt::wait_for_copies(-1);
#endif
}

}  // namespace orrery::kernels::cuda
