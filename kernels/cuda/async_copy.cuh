// Copies from global to shared memory that go on while their thread computes.
#pragma once

#include <cuda_runtime.h>

namespace orrery::kernels::cuda {

/// kBytes of 4, 8 or 16, to which both addresses are aligned.
template <int kBytes>
__device__ inline void copy_async(float* to, const float* from) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(shared), "l"(from), "n"(kBytes)
               : "memory");
#else
  for (int i = 0; i < kBytes / 4; ++i) to[i] = from[i];
#endif
}

/// This thread's copies have arrived. Other threads see them after __syncthreads().
__device__ inline void wait_for_copies() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_all;\n" ::: "memory");
#endif
}

}  // namespace orrery::kernels::cuda
