// Sums of integers and a maximum do not depend on their order, so blocks add theirs by
// atomics.
#include "kernels/cuda/reductions.h"

#include <bit>
#include <cmath>
#include <limits>
#include <mutex>

#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = kMultiprocessors * 8;

using Word = unsigned long long;

/// What blocks add to. One for the whole process: `turns` below.
struct Totals {
  Word low, high;
  unsigned most;
};
__device__ Totals totals;

std::mutex& turns() {
  static std::mutex mutex;
  return mutex;
}

__device__ Word sum_of_warp(Word x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllThreads, x, step);
  return x;
}

__global__ void __launch_bounds__(kThreads) checksum_kernel(const float* x, int64_t count) {
  Word low = 0, high = 0;
  const int64_t step = int64_t{gridDim.x} * kThreads;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step) {
    const Word word = __float_as_uint(x[i]);
    low += word;
    high += static_cast<Word>(count - i) * word;
  }
  low = sum_of_warp(low);
  high = sum_of_warp(high);
  if (threadIdx.x % kWarp != 0) return;
  atomicAdd(&totals.low, low);
  atomicAdd(&totals.high, high);
}

__global__ void __launch_bounds__(kThreads) max_abs_kernel(const float* x, int64_t count) {
  unsigned most = 0;
  const int64_t step = int64_t{gridDim.x} * kThreads;
#pragma unroll 4
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += step)
    most = max(most, __float_as_uint(x[i]) & 0x7FFFFFFFu);
  for (int s = kWarp / 2; s > 0; s /= 2) most = max(most, __shfl_xor_sync(kAllThreads, most, s));
  if (threadIdx.x % kWarp == 0) atomicMax(&totals.most, most);
}

/// The totals after `kernel` has gone over x.
Totals reduce(const Context& ctx, const char* op, void (*kernel)(const float*, int64_t),
              Vec<const float> x) {
  const std::lock_guard lock(turns());
  Totals result{};
  check_call(op, cudaMemcpyToSymbolAsync(totals, &result, sizeof result, 0, cudaMemcpyHostToDevice,
                                         stream_of(ctx)));
  if (x.size > 0) {
    const int64_t blocks = std::min(ceil_div(x.size, kThreads), kMostBlocks);
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream_of(ctx)>>>(x.data, x.size);
    check_launch(op);
  }
  check_call(op, cudaMemcpyFromSymbolAsync(&result, totals, sizeof result, 0,
                                           cudaMemcpyDeviceToHost, stream_of(ctx)));
  check_call(op, cudaStreamSynchronize(stream_of(ctx)));
  return result;
}

}  // namespace

FletcherSums checksum(const Context& ctx, const Checksum& op) {
  const Totals sums = reduce(ctx, "checksum", checksum_kernel, op.x);
  return {.low = sums.low, .high = sums.high};
}

float max_abs(const Context& ctx, const MaxAbs& op) {
  const float value = std::bit_cast<float>(reduce(ctx, "max_abs", max_abs_kernel, op.x).most);
  return std::isfinite(value) ? value : std::numeric_limits<float>::infinity();
}

}  // namespace orrery::kernels::cuda
