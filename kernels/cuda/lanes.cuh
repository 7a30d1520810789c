// Lanes sums on the device (docs/numerics.md): 16 threads are the 16 lanes, thread j
// takes elements j, j + 16, ... in rising order, and sum16 folds 8, 4, 2, 1. Two sums
// fit a warp. A sum of two floats does not depend on their order, so a butterfly gives
// every lane the bits of the tree.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/numerics.h"
#include "kernels/scalar_math.h"

namespace orrery::kernels::cuda {

inline constexpr unsigned kAllThreads = 0xffffffffu;

/// The fold of a lanes sum: all 16 threads of a half-warp get it. For whole warps.
__device__ inline float sum16(float lane) {
#pragma unroll
  for (int step = kSumLanes / 2; step > 0; step /= 2)
    lane = __fadd_rn(lane, __shfl_xor_sync(kAllThreads, lane, step));
  return lane;
}

/// acc becomes term(i, acc) for i = lane, lane + 16, ... < count. kAhead elements are
/// loaded before the first of them is added.
template <int kAhead, class Load, class Term>
__device__ inline float lane_chain(int lane, int64_t count, const Load& load, const Term& term) {
  float acc = 0.0f;
  int64_t i = lane;
  for (; i + (kAhead - 1) * kSumLanes < count; i += kAhead * kSumLanes) {
    decltype(load(i)) values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) values[a] = load(i + a * kSumLanes);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) acc = term(values[a], acc);
  }
  for (; i < count; i += kSumLanes) acc = term(load(i), acc);
  return acc;
}

}  // namespace orrery::kernels::cuda
