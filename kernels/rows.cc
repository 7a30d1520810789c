#include "kernels/rows.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/rows.h"
#include "kernels/cuda/rows.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

void check_copy(const char* op, const ActMat& to, const ConstActMat& from, int64_t rows) {
  require_mat(op, "to", to, rows, from.cols);
  require_mat(op, "from", from, from.rows, from.cols);
  if (to.dtype != from.dtype)
    fail("{}: to holds {}, from {}", op, dtype_name(to.dtype), dtype_name(from.dtype));
}

}  // namespace

void copy_rows(const Context& ctx, const CopyRows& op) {
  constexpr const char* kOp = "copy_rows";
  check_copy(kOp, op.to, op.from, op.from.rows);
  const ProfileOpScope profile(ctx, "copy rows", 0, 2 * mat_bytes(op.to));
  dispatch<cpu::copy_rows, cuda::copy_rows>(ctx, kOp, op);
}

void round_rows(const Context& ctx, const RoundRows& op) {
  constexpr const char* kOp = "round_rows";
  require_mat(kOp, "to", op.to, op.from.rows, op.from.cols);
  require_mat(kOp, "from", op.from, op.from.rows, op.from.cols);
  require_dtype(kOp, "to", op.to.dtype, DType::kBF16);
  const ProfileOpScope profile(ctx, "round rows", 0, mat_bytes(op.to) + f32_bytes(op.from.size()));
  dispatch<cpu::round_rows, cuda::round_rows>(ctx, kOp, op);
}

void gather_rows(const Context& ctx, const GatherRows& op) {
  constexpr const char* kOp = "gather_rows";
  check_copy(kOp, op.to, op.from, op.rows.size);
  require_vec(kOp, "rows", op.rows, op.to.rows);
  const ProfileOpScope profile(ctx, "gather rows", 0, 2 * mat_bytes(op.to));
  dispatch<cpu::gather_rows, cuda::gather_rows>(ctx, kOp, op);
}

void scatter_add_rows(const Context& ctx, const ScatterAddRows& op) {
  constexpr const char* kOp = "scatter_add_rows";
  require_mat(kOp, "to", op.to, op.to.rows, op.to.cols);
  require_mat(kOp, "from", op.from, op.rows.size, op.to.cols);
  require_vec(kOp, "rows", op.rows, op.from.rows);
  const ProfileOpScope profile(ctx, "scatter rows", 0, f32_bytes(3 * op.from.size()));
  dispatch<cpu::scatter_add_rows, cuda::scatter_add_rows>(ctx, kOp, op);
}

void spread_rows(const Context& ctx, const SpreadRows& op) {
  constexpr const char* kOp = "spread_rows";
  require_mat(kOp, "y", op.y, op.source.size, op.y.cols);
  require_vec(kOp, "source", op.source, op.y.rows);
  const ProfileOpScope profile(ctx, "spread rows", 0, f32_bytes(2 * op.y.size()));
  dispatch<cpu::spread_rows, cuda::spread_rows>(ctx, kOp, op);
}

}  // namespace orrery::kernels
