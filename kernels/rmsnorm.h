// Root mean square norm (Zhang and Sennrich 2019):
//   y = (x * rstd) * weight,  rstd = 1 / sqrt(mean(x^2) + eps)
// The sum of squares is a lanes sum over the vector, with fma, of 16 lanes; of 256 in
// the class dot16-rz25 (docs/numerics.md). rstd takes IEEE division and square root.
//
// A matrix [t, heads * d] is `heads` vectors of d elements a row: one for a layer's
// norm, the heads of queries or keys for Qwen3's QK-norm.
//
// Matrices are f32 or bf16 where nothing else is said; all arithmetic is f32, and what
// is written to a bf16 matrix is rounded to nearest even.
#pragma once

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/numerics.h"

namespace orrery::kernels {

struct RmsnormForward {
  ActMat y;                 ///< [t, heads * d]; may be x; bf16 where x is
  Vec<float> rstd;          ///< [t * heads]; may be empty when no backward follows
  ConstActMat x;            ///< [t, heads * d]
  Vec<const float> weight;  ///< [d]
  float eps = 0.0f;         ///< finite, not negative
  int64_t heads = 1;
  NumericsClass numerics = NumericsClass::kF32Chain;
};
void rmsnorm_forward(const Context& ctx, const RmsnormForward& op);

/// Residual form: h = x + delta, y = rmsnorm(h). One pass over memory, with the bits of
/// the two steps.
struct RmsnormResidualForward {
  Mat<float> h;             ///< [t, d]; may be x
  ActMat y;                 ///< [t, d]
  Vec<float> rstd;          ///< [t]; may be empty when no backward follows
  Mat<const float> x;       ///< [t, d]
  Mat<const float> delta;   ///< [t, d]
  Vec<const float> weight;  ///< [d]
  float eps = 0.0f;         ///< finite, not negative
  NumericsClass numerics = NumericsClass::kF32Chain;
};
void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op);

/// The gradient through the norm, vector by vector:
///   g  = dy * weight
///   c  = lanes sum of g x (fma)
///   a  = c / d * rstd * rstd
///   dx = fma(fma(-a, x, g), rstd, dx)  where it is accumulated,
///   dx = fma(-a, x, g) * rstd          where it is overwritten
/// dweight [d] += the sum over (row, head) in rising order (chain), which starts from 0
/// where dweight is overwritten. With run_ends each run's sum starts from 0, and the
/// runs' sums are added in order (plain adds).
struct RmsnormBackward {
  ActMat dx;                ///< [t, heads * d], of x's element type, f32 where it is
                            ///< accumulated; may be dy where it is overwritten
  ActMat dx_rounded{};      ///< [t, heads * d] bf16, or without memory: dx, which is then
                            ///< f32, as the operand of the products that follow
  Vec<float> dweight;       ///< [d]
  ConstActMat dy;           ///< [t, heads * d], of x's element type
  ConstActMat x;            ///< [t, heads * d] the forward's input: h in the residual form
  Vec<const float> rstd;    ///< [t * heads]
  Vec<const float> weight;  ///< [d]
  bool accumulate = false;  ///< to dx
  bool accumulate_dweight = true;
  int64_t heads = 1;
  NumericsClass numerics = NumericsClass::kF32Chain;
  /// In host memory, as MatmulBackwardWeight's. Empty: one sum over all rows, which
  /// starts from what is there.
  Span<const int64_t> run_ends{};
};
void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op);

}  // namespace orrery::kernels
