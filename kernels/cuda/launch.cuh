// What every file of CUDA kernels needs to launch them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "core/context.h"
#include "core/cuda_api.h"
#include "core/device_fn.h"
#include "core/stream.h"

namespace orrery::kernels::cuda {

/// Threads of a warp.
inline constexpr int kWarp = 32;
/// Multiprocessors that a choice between kernels counts on: an H100's. Bits never
/// depend on it.
inline constexpr int64_t kMultiprocessors = 132;

inline cudaStream_t stream_of(const Context& ctx) {
  return static_cast<cudaStream_t>(ctx.stream().handle());
}

/// Error, naming the op, for a call of the runtime that failed.
inline void check_call(const char* op, cudaError_t result) {
  if (result != cudaSuccess) cuda_api::fail_op(op, result);
}
/// Likewise for the launch before it.
inline void check_launch(const char* op) { check_call(op, cudaGetLastError()); }

ORRERY_DEVICE_FN constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Elements that one thread of an elementwise kernel takes, kElementThreads apart.
inline constexpr int kElementThreads = 256;
inline constexpr int kElementsEach = 4;

/// Calls body(i) once for each i < count. The loads of a thread's elements do not wait
/// for one another where body gives the compiler the freedom.
template <class Body>
__global__ void __launch_bounds__(kElementThreads) element_kernel(int64_t count, Body body) {
  const int64_t first =
      int64_t{blockIdx.x} * (kElementThreads * kElementsEach) + int64_t{threadIdx.x};
  if (first + (kElementsEach - 1) * kElementThreads < count) {
#pragma unroll
    for (int e = 0; e < kElementsEach; ++e) body(first + e * kElementThreads);
  } else {
    for (int64_t i = first; i < count; i += kElementThreads) body(i);
  }
}

/// Launches body, a __device__ lambda or a function object of one index.
template <class Body>
void for_each_element(const Context& ctx, const char* op, int64_t count, const Body& body) {
  if (count == 0) return;
  const int64_t blocks = ceil_div(count, kElementThreads * kElementsEach);
  element_kernel<<<static_cast<unsigned>(blocks), kElementThreads, 0, stream_of(ctx)>>>(count,
                                                                                        body);
  check_launch(op);
}

}  // namespace orrery::kernels::cuda
