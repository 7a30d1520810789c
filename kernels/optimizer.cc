#include "kernels/optimizer.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

/// base^exponent by squaring, with the same bits everywhere, which the library's pow
/// does not promise.
double power(double base, int64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent /= 2, base *= base) {
    if (exponent % 2 == 1) result *= base;
  }
  return result;
}

void check_params(const char* op, const AdamWParams& p, int64_t t, float grad_scale) {
  const auto check = [&](bool ok, const char* name, float value, const char* wanted) {
    if (!ok) fail("{}: {} is {}; it must be {}", op, name, value, wanted);
  };
  check(std::isfinite(p.lr) && p.lr >= 0.0f, "lr", p.lr, "finite and not negative");
  check(p.beta1 >= 0.0f && p.beta1 < 1.0f, "beta1", p.beta1, "in [0, 1)");
  check(p.beta2 >= 0.0f && p.beta2 < 1.0f, "beta2", p.beta2, "in [0, 1)");
  check(std::isfinite(p.eps) && p.eps > 0.0f, "eps", p.eps, "a positive number");
  check(std::isfinite(p.weight_decay) && p.weight_decay >= 0.0f, "weight_decay", p.weight_decay,
        "finite and not negative");
  check(std::isfinite(grad_scale), "grad_scale", grad_scale, "finite");
  if (t < 1) fail("{}: step is {}; steps count from 1", op, t);
}

}  // namespace

AdamWConstants adamw_constants(const AdamwStep& op) {
  const AdamWParams& params = op.params;
  const double lr = params.lr;
  return {
      .beta1 = params.beta1,
      .one_minus_beta1 = 1.0f - params.beta1,
      .beta2 = params.beta2,
      .one_minus_beta2 = 1.0f - params.beta2,
      .eps = params.eps,
      .grad_scale = op.grad_scale,
      .step_size = static_cast<float>(lr / (1.0 - power(params.beta1, op.t))),
      .inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - power(params.beta2, op.t))),
      .decay = static_cast<float>(lr * params.weight_decay),
  };
}

void adamw_step(const Context& ctx, const AdamwStep& op) {
  constexpr const char* kOp = "adamw_step";
  check_params(kOp, op.params, op.t, op.grad_scale);
  const int64_t count = op.w.size;
  require_vec(kOp, "w", op.w, count);
  require_vec(kOp, "m", op.m, count);
  require_vec(kOp, "v", op.v, count);
  require_vec(kOp, "grad", op.grad, count);
  const ProfileOpScope profile(ctx, "adamw", 0, f32_bytes(7 * count));
  dispatch<cpu::adamw_step, cuda::adamw_step>(ctx, kOp, op);
}

void sum_squares_chunks(const Context& ctx, const SumSquaresChunks& op) {
  constexpr const char* kOp = "sum_squares_chunks";
  require_vec(kOp, "x", op.x, op.x.size);
  require_vec(kOp, "sums", op.sums, (op.x.size + kNormChunk - 1) / kNormChunk);
  const ProfileOpScope profile(ctx, "gradient norm", 0, f32_bytes(op.x.size));
  dispatch<cpu::sum_squares_chunks, cuda::sum_squares_chunks>(ctx, kOp, op);
}

}  // namespace orrery::kernels
