// AdamW (Loshchilov and Hutter 2019) and the global gradient norm, over slices of flat
// buffers.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

struct AdamWParams {
  float lr = 1e-6f;
  float beta1 = 0.9f, beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0.01f;
};

/// One step over slices of equal length, in one pass. Elementwise, with g the clipped
/// gradient:
///   g = grad * grad_scale
///   m = b1 m + (1 - b1) g
///   v = b2 v + (1 - b2) g^2
///   w = w - lr * wd * w
///   w = w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
/// Division and square root are IEEE's, so the bits are the same for every vector
/// width. In float32 this is
///   g = grad * grad_scale
///   m = fma(b1, m, (1 - b1) * g)
///   v = fma(b2, v, ((1 - b2) * g) * g)
///   u = m / fma(sqrt(v), 1 / sqrt(1 - b2^t), eps)
///   w = w - fma(lr / (1 - b1^t), u, (lr * wd) * w)
/// where lr / (1 - b1^t), 1 / sqrt(1 - b2^t) and lr * wd are computed in double and
/// rounded once. Throws Error for unequal lengths, t < 1 and hyper-parameters out of
/// range. The slices must not overlap.
struct AdamwStep {
  Vec<float> w, m, v;     ///< [n]
  Vec<const float> grad;  ///< [n]
  AdamWParams params;
  int64_t t = 0;  ///< counts from 1
  float grad_scale = 1.0f;
};
void adamw_step(const Context& ctx, const AdamwStep& op);

/// The step's constants, each rounded once from double.
struct AdamWConstants {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float eps;
  float grad_scale;
  float step_size;       ///< lr / (1 - beta1^t)
  float inv_sqrt_bias2;  ///< 1 / sqrt(1 - beta2^t)
  float decay;           ///< lr * weight_decay
};
AdamWConstants adamw_constants(const AdamwStep& op);

/// Elements in one chunk of a global sum. ZeRO slices are cut at multiples of it.
inline constexpr int64_t kNormChunk = 65536;

/// sums[c] = lanes sum of squares (with fma) of chunk c, which begins at element
/// c * kNormChunk of x; the last chunk may be short. The norm is then the square root
/// of the sums added in order in double: any split of chunks over ranks gives the same
/// bits.
struct SumSquaresChunks {
  Vec<float> sums;  ///< one for each chunk
  Vec<const float> x;
};
void sum_squares_chunks(const Context& ctx, const SumSquaresChunks& op);

}  // namespace orrery::kernels
