#include "kernels/rmsnorm.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/rmsnorm.h"

namespace orrery::kernels {
namespace {

/// A row of a matrix as the only head of a token.
template <class T>
Heads<T> one_head(Mat<T> m) {
  return {m.data, m.rows, 1, m.cols, m.stride};
}

template <class T>
Mat<T> one_column(Span<T> values) {
  return {values.data(), values.size(), 1};
}

void check_eps(const char* op, float eps) {
  if (!(std::isfinite(eps) && eps >= 0.0f))
    fail("{}: eps is {}; it must be finite and not negative", op, eps);
}

}  // namespace

void rmsnorm_forward(const Context& ctx, Mat<float> y, Span<float> rstd, Mat<const float> x,
                     Span<const float> weight, float eps) {
  constexpr const char* kOp = "rmsnorm_forward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "columns of x", x.cols);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "y", y, x.rows, x.cols);
  require_size(kOp, "weight", weight.size(), x.cols);
  if (!rstd.empty()) require_size(kOp, "rstd", rstd.size(), x.rows);
  check_eps(kOp, eps);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(2 * x.size()));
  rmsnorm_forward_cpu(ctx, {.y = one_head(y),
                            .rstd = one_column(rstd),
                            .x = one_head(x),
                            .delta = {},
                            .h = {},
                            .weight = weight.data(),
                            .eps = eps});
}

void rmsnorm_residual_forward(const Context& ctx, Mat<float> h, Mat<float> y, Span<float> rstd,
                              Mat<const float> x, Mat<const float> delta, Span<const float> weight,
                              float eps) {
  constexpr const char* kOp = "rmsnorm_residual_forward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "columns of x", x.cols);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "delta", delta, x.rows, x.cols);
  require_mat(kOp, "h", h, x.rows, x.cols);
  require_mat(kOp, "y", y, x.rows, x.cols);
  require_size(kOp, "weight", weight.size(), x.cols);
  if (!rstd.empty()) require_size(kOp, "rstd", rstd.size(), x.rows);
  check_eps(kOp, eps);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(4 * x.size()));
  rmsnorm_forward_cpu(ctx, {.y = one_head(y),
                            .rstd = one_column(rstd),
                            .x = one_head(x),
                            .delta = one_head(delta),
                            .h = one_head(h),
                            .weight = weight.data(),
                            .eps = eps});
}

void rmsnorm_backward(const Context& ctx, Mat<float> dx, Span<float> dweight, Mat<const float> dy,
                      Mat<const float> x, Span<const float> rstd, Span<const float> weight) {
  constexpr const char* kOp = "rmsnorm_backward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "columns of x", x.cols);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "dy", dy, x.rows, x.cols);
  require_mat(kOp, "dx", dx, x.rows, x.cols);
  require_size(kOp, "weight", weight.size(), x.cols);
  require_size(kOp, "dweight", dweight.size(), x.cols);
  require_size(kOp, "rstd", rstd.size(), x.rows);
  const ProfileOpScope profile(ctx, "rmsnorm backward", 0, f32_bytes(4 * x.size()));
  rmsnorm_backward_cpu(ctx, {.dx = one_head(dx),
                             .dweight = dweight.data(),
                             .dy = one_head(dy),
                             .x = one_head(x),
                             .rstd = one_column(rstd),
                             .weight = weight.data(),
                             .accumulate = true});
}

void rmsnorm_heads_forward(const Context& ctx, Heads<float> y, Mat<float> rstd,
                           Heads<const float> x, Span<const float> weight, float eps) {
  constexpr const char* kOp = "rmsnorm_heads_forward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "head_dim", x.head_dim);
  require_heads(kOp, "x", x, x.tokens, x.heads, x.head_dim);
  require_heads(kOp, "y", y, x.tokens, x.heads, x.head_dim);
  require_size(kOp, "weight", weight.size(), x.head_dim);
  if (rstd.data != nullptr || rstd.size() != 0) require_mat(kOp, "rstd", rstd, x.tokens, x.heads);
  check_eps(kOp, eps);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(2 * x.size()));
  rmsnorm_forward_cpu(
      ctx,
      {.y = y, .rstd = rstd, .x = x, .delta = {}, .h = {}, .weight = weight.data(), .eps = eps});
}

void rmsnorm_heads_backward(const Context& ctx, Heads<float> dx, Span<float> dweight,
                            Heads<const float> dy, Heads<const float> x, Mat<const float> rstd,
                            Span<const float> weight) {
  constexpr const char* kOp = "rmsnorm_heads_backward";
  require_cpu(ctx, kOp);
  require_positive(kOp, "head_dim", x.head_dim);
  require_heads(kOp, "x", x, x.tokens, x.heads, x.head_dim);
  require_heads(kOp, "dy", dy, x.tokens, x.heads, x.head_dim);
  require_heads(kOp, "dx", dx, x.tokens, x.heads, x.head_dim);
  require_mat(kOp, "rstd", rstd, x.tokens, x.heads);
  require_size(kOp, "weight", weight.size(), x.head_dim);
  require_size(kOp, "dweight", dweight.size(), x.head_dim);
  const ProfileOpScope profile(ctx, "rmsnorm backward", 0, f32_bytes(3 * x.size()));
  rmsnorm_backward_cpu(ctx, {.dx = dx,
                             .dweight = dweight.data(),
                             .dy = dy,
                             .x = x,
                             .rstd = rstd,
                             .weight = weight.data(),
                             .accumulate = false});
}

}  // namespace orrery::kernels
