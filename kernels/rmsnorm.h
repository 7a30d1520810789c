// Root mean square norm (Zhang and Sennrich 2019):
//   y = (x * rstd) * weight,  rstd = 1 / sqrt(mean(x^2) + eps)
// The sum of squares is a lanes sum over the row, with fma; rstd takes IEEE division
// and square root.
#pragma once

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// y, x [t, d]; weight [d]; rstd [t], which may be empty when no backward follows. y
/// may be x.
void rmsnorm_forward(const Context& ctx, Mat<float> y, Span<float> rstd, Mat<const float> x,
                     Span<const float> weight, float eps);

/// Residual form: h = x + delta (h may be x), y = rmsnorm(h). One pass over memory,
/// with the bits of the two steps.
void rmsnorm_residual_forward(const Context& ctx, Mat<float> h, Mat<float> y, Span<float> rstd,
                              Mat<const float> x, Mat<const float> delta, Span<const float> weight,
                              float eps);

/// dx [t, d] += the gradient through the norm:
///   g  = dy * weight
///   c  = lanes sum of g x (fma)
///   a  = c / d * rstd * rstd
///   dx = fma(fma(-a, x, g), rstd, dx)
/// (The heads form below overwrites: there dx is the product alone.) dweight [d] += the
/// sum over rows in row order (chain). x is the forward's input: h in the residual
/// form.
void rmsnorm_backward(const Context& ctx, Mat<float> dx, Span<float> dweight, Mat<const float> dy,
                      Mat<const float> x, Span<const float> rstd, Span<const float> weight);

/// The norm of each head's vector (QK-norm of Qwen3). rstd [t, heads]; weight
/// [head_dim]. y may be x.
void rmsnorm_heads_forward(const Context& ctx, Heads<float> y, Mat<float> rstd,
                           Heads<const float> x, Span<const float> weight, float eps);

/// dx is overwritten and may be dy. dweight += the sum over (token, head) in rising
/// order. x is the forward's input.
void rmsnorm_heads_backward(const Context& ctx, Heads<float> dx, Span<float> dweight,
                            Heads<const float> dy, Heads<const float> x, Mat<const float> rstd,
                            Span<const float> weight);

}  // namespace orrery::kernels
