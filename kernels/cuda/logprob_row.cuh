// What log-prob kernels of all classes share.
#pragma once

#include <limits>

#include "kernels/cuda/launch.cuh"
#include "kernels/scalar_math.h"

namespace orrery::kernels::cuda {

inline constexpr int kLogprobThreads = 256;
inline constexpr float kLowest = -std::numeric_limits<float>::max();
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

/// The larger; b where a is NaN.
__device__ inline float larger(float a, float b) { return a > b ? a : b; }

/// z - m, of which -inf counts as the lowest finite number. As the CPU's max with a
/// limit as second argument: a NaN becomes the limit, which its p makes NaN again.
__device__ inline float finite_below(float below_max) {
  return below_max > kLowest ? below_max : kLowest;
}

struct LogprobRows {
  Mat<const float> logits;
  const int32_t* targets;
  const float* inv_temperature;
  float *logprobs, *entropies, *max, *log_sum;  ///< all but logprobs may be null
};

/// What follows of a row's m, s and the weighted sum: one thread's.
__device__ inline void write_row(const LogprobRows& op, int64_t row, float m, float s,
                                 float weighted) {
  const float* const logits = op.logits.data + row * op.logits.stride;
  const float log_sum = log_f32(s);
  const int32_t target = max(op.targets[row], 0);
  const float z = __fmul_rn(logits[target], op.inv_temperature[row]);
  op.logprobs[row] = __fsub_rn(__fsub_rn(z, m), log_sum);
  if (op.entropies != nullptr) op.entropies[row] = __fsub_rn(log_sum, __fdiv_rn(weighted, s));
  if (op.max != nullptr) op.max[row] = m;
  if (op.log_sum != nullptr) op.log_sum[row] = log_sum;
}

}  // namespace orrery::kernels::cuda
