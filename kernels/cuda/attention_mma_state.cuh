// Online softmax's state of the forward on tensor cores (attention_mma_forward.cuh).
#pragma once

#include <limits>

#include "kernels/cuda/attention_mma.cuh"

namespace orrery::kernels::cuda {

/// Of a thread's two queries: online softmax's state, of which it has one sum of the
/// weights each and some columns of the output.
template <int kColumns>
struct MmaState {
  float m[2], l[2];
  float o[kColumns][4];

  __device__ void clear_all() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      m[r] = -std::numeric_limits<float>::infinity();
      l[r] = 0.0f;
    }
    clear(o);
  }
  __device__ void scale_output(const float (&c)[2]) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n][e] = __fmul_rn(o[n][e], c[e / 2]);
    }
  }
  /// What the queries have of a split joins what they have of those before.
  __device__ void merge(const MmaState& split, const bool (&sees)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!sees[r]) continue;
      const float top = split.m[r] > m[r] ? split.m[r] : m[r];
      const float before = exp2_f32(__fsub_rn(m[r], top));
      const float added = exp2_f32(__fsub_rn(split.m[r], top));
      const auto join = [&](float a, float b) {
        return __fadd_rn(__fmul_rn(a, before), __fmul_rn(b, added));
      };
      m[r] = top;
      l[r] = join(l[r], split.l[r]);
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) o[n][2 * r + e] = join(o[n][2 * r + e], split.o[n][2 * r + e]);
      }
    }
  }
};

/// The larger one, where only `x` may be NaN, which is no maximum.
__device__ inline float larger(float top, float x) { return x > top ? x : top; }

/// Of the four threads that share a query.
__device__ inline float largest_of_row(float top) {
#pragma unroll
  for (int step = 1; step < 4; step *= 2)
    top = larger(top, __shfl_xor_sync(kAllThreads, top, step));
  return top;
}

}  // namespace orrery::kernels::cuda
