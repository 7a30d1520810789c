// CPU half of kernels/optimizer.h; arguments are already checked.
#pragma once

#include "core/context.h"
#include "core/span.h"

namespace orrery::kernels {

/// The step's constants, each rounded once from double.
struct AdamWConstants {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float eps;
  float grad_scale;
  float step_size;       ///< lr / (1 - beta1^t)
  float inv_sqrt_bias2;  ///< 1 / sqrt(1 - beta2^t)
  float decay;           ///< lr * weight_decay
};

void adamw_step_cpu(const Context& ctx, Span<float> w, Span<float> m, Span<float> v,
                    Span<const float> grad, const AdamWConstants& constants);
void sum_squares_chunks_cpu(const Context& ctx, Span<float> sums, Span<const float> x);

}  // namespace orrery::kernels
