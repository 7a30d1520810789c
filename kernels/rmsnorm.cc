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
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(2 * x.size()));
  dispatch<cpu::rmsnorm_forward, cuda::rmsnorm_forward>(ctx, kOp, op);
}

void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op) {
  constexpr const char* kOp = "rmsnorm_residual_forward";
  const ConstActMat& x = op.x;
  require_positive(kOp, "columns of x", x.cols);
  require_mat(kOp, "x", x, x.rows, x.cols);
  require_mat(kOp, "delta", op.delta, x.rows, x.cols);
  require_mat(kOp, "h", op.h, x.rows, x.cols);
  require_mat(kOp, "y", op.y, x.rows, x.cols);
  require_vec(kOp, "weight", op.weight, x.cols);
  if (!op.rstd.empty()) require_vec(kOp, "rstd", op.rstd, x.rows);
  check_eps(kOp, op.eps);
  const ProfileOpScope profile(ctx, "rmsnorm", 0, f32_bytes(4 * x.size()));
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
  const int64_t passes = op.accumulate ? 4 : 3;
  const ProfileOpScope profile(ctx, "rmsnorm backward", 0, f32_bytes(passes * x.size()));
  dispatch<cpu::rmsnorm_backward, cuda::rmsnorm_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
