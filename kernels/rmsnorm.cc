#include "kernels/rmsnorm.h"

#include <cmath>

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/rmsnorm.h"
#include "kernels/cuda/rmsnorm.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

void check_eps(const char* op, float eps) {
  if (!(std::isfinite(eps) && eps >= 0.0f))
    fail("{}: eps is {}; it must be finite and not negative", op, eps);
}

/// Elements of a vector of x.
int64_t vector_size(const char* op, const ConstActMat& x, int64_t heads) {
  require_positive(op, "columns of x", x.cols);
  if (heads < 1 || x.cols % heads != 0)
    fail("{}: x has {} columns for {} heads; they must divide evenly", op, x.cols, heads);
  return x.cols / heads;
}

/// Gradients of the residual stream's norms are f32, those of queries' and keys' norms
/// bf16 where the model computes in bf16.
void check_gradient_types(const char* name, const RmsnormBackward& op) {
  require_f32_or_bf16(name, "x", op.x.dtype);
  require_dtype(name, "dy", op.dy.dtype, op.x.dtype);
  require_dtype(name, "dx", op.dx.dtype, op.x.dtype);
  if (op.accumulate) require_dtype(name, "dx, which is added to,", op.dx.dtype, DType::kF32);
  if (op.dx_rounded.data == nullptr) return;
  require_mat(name, "dx_rounded", op.dx_rounded, op.x.rows, op.x.cols);
  require_dtype(name, "dx_rounded", op.dx_rounded.dtype, DType::kBF16);
  require_dtype(name, "dx beside dx_rounded", op.dx.dtype, DType::kF32);
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op) {
  constexpr const char* kOp = "rmsnorm_forward";
  const ConstActMat& x = op.x;
  const int64_t dim = vector_size(kOp, x, op.heads);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "y", op.y, x.rows, x.cols);
  require_vec(kOp, "weight", op.weight, dim);
  if (!op.rstd.empty()) require_vec(kOp, "rstd", op.rstd, x.rows * op.heads);
  check_eps(kOp, op.eps);
  require_f32_or_bf16(kOp, "x", x.dtype);
  require_f32_or_bf16(kOp, "y", op.y.dtype);
  if (x.dtype == DType::kBF16) require_dtype(kOp, "y", op.y.dtype, DType::kBF16);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, mat_bytes(x) + mat_bytes(op.y));
  dispatch<cpu::rmsnorm_forward, cuda::rmsnorm_forward>(ctx, kOp, op);
}

void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op) {
  constexpr const char* kOp = "rmsnorm_residual_forward";
  const Mat<const float>& x = op.x;
  require_positive(kOp, "columns of x", x.cols);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "delta", op.delta, x.rows, x.cols);
  require_mat(kOp, "h", op.h, x.rows, x.cols);
  require_mat(kOp, "y", op.y, x.rows, x.cols);
  require_vec(kOp, "weight", op.weight, x.cols);
  if (!op.rstd.empty()) require_vec(kOp, "rstd", op.rstd, x.rows);
  check_eps(kOp, op.eps);
  require_f32_or_bf16(kOp, "y", op.y.dtype);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(3 * x.size()) + mat_bytes(op.y));
  dispatch<cpu::rmsnorm_residual_forward, cuda::rmsnorm_residual_forward>(ctx, kOp, op);
}

void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op) {
  constexpr const char* kOp = "rmsnorm_backward";
  const ConstActMat& x = op.x;
  const int64_t dim = vector_size(kOp, x, op.heads);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "dy", op.dy, x.rows, x.cols);
  require_mat(kOp, "dx", op.dx, x.rows, x.cols);
  require_vec(kOp, "weight", op.weight, dim);
  require_vec(kOp, "dweight", op.dweight, dim);
  require_vec(kOp, "rstd", op.rstd, x.rows * op.heads);
  check_gradient_types(kOp, op);
  require_runs(kOp, op.run_ends, x.rows);
  const ProfileOpScope profile(ctx, "rmsnorm backward", 0,
                               mat_bytes(x) + mat_bytes(op.dy) +
                                   mat_bytes(op.dx) * (op.accumulate ? 2 : 1) +
                                   mat_bytes(op.dx_rounded));
  dispatch<cpu::rmsnorm_backward, cuda::rmsnorm_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
