#include "kernels/attention.h"

#include <utility>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/attention.h"
#include "kernels/cuda/attention.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {
namespace {

void check_lse(const char* op, Mat<const float> lse, int64_t rows, int64_t heads) {
  if (lse.rows != rows || lse.cols != heads || lse.stride < heads) {
    fail("{}: lse is [{}, {}]; expected [{}, {}]", op, lse.rows, lse.cols, rows, heads);
  }
}

/// Floating-point operations of scores and outputs: 4 for each head, dimension and pair
/// of a row and a key that it sees.
double pair_flops(double pairs, const AttentionShape& shape) {
  return 4.0 * pairs * shape.heads * shape.head_dim;
}

}  // namespace

void attention_forward(const Context& ctx, const AttentionForward& op) {
  constexpr const char* kOp = "attention_forward";
  const AttentionPlan& plan = op.plan;
  const AttentionShape& shape = plan.shape;
  check_pool(kOp, op.pool, plan);
  require_mat(kOp, "q", op.q, plan.rows, shape.heads * shape.head_dim);
  require_mat(kOp, "out", op.out, plan.rows, shape.heads * shape.head_dim);
  if (op.lse.data != nullptr) check_lse(kOp, op.lse, plan.rows, shape.heads);
  const ProfileOpScope profile(
      ctx, "attention forward", pair_flops(plan.pairs, shape),
      static_cast<double>(2 * op.q.size() + 2 * plan.keys * shape.kv_heads * shape.head_dim) *
          static_cast<double>(dtype_bytes(op.pool.dtype)));
  dispatch<cpu::attention_forward, cuda::attention_forward>(ctx, kOp, op);
}

void attention_backward(const Context& ctx, const AttentionBackward& op) {
  constexpr const char* kOp = "attention_backward";
  const AttentionBackwardPlan& plan = op.plan;
  const AttentionShape& shape = plan.shape;
  const int64_t q_columns = shape.heads * shape.head_dim;
  const int64_t kv_columns = shape.kv_heads * shape.head_dim;
  require_mat(kOp, "q", op.q, plan.rows, q_columns);
  require_mat(kOp, "out", op.out, plan.rows, q_columns);
  require_mat(kOp, "dout", op.dout, plan.rows, q_columns);
  require_mat(kOp, "dq", op.dq, plan.rows, q_columns);
  require_mat(kOp, "k", op.k, plan.rows, kv_columns);
  require_mat(kOp, "v", op.v, plan.rows, kv_columns);
  require_mat(kOp, "dk", op.dk, plan.rows, kv_columns);
  require_mat(kOp, "dv", op.dv, plan.rows, kv_columns);
  const std::pair<const char*, DType> types[] = {
      {"out", op.out.dtype}, {"dout", op.dout.dtype}, {"dq", op.dq.dtype}, {"k", op.k.dtype},
      {"v", op.v.dtype},     {"dk", op.dk.dtype},     {"dv", op.dv.dtype}};
  for (const auto& [name, dtype] : types) {
    if (dtype != op.q.dtype) {
      fail("{}: {} is {}, but q is {}", kOp, name, dtype_name(dtype), dtype_name(op.q.dtype));
    }
  }
  check_lse(kOp, op.lse, plan.rows, shape.heads);
  const double element = static_cast<double>(dtype_bytes(op.q.dtype));
  const ProfileOpScope profile(ctx, "attention backward", 2 * pair_flops(plan.pairs, shape),
                               element * 4 * (op.q.size() + op.k.size()));
  dispatch<cpu::attention_backward, cuda::attention_backward>(ctx, kOp, op);
}

}  // namespace orrery::kernels
