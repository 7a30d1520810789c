#include "kernels/elementwise.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/dispatch.h"

namespace orrery::kernels {

void fill(const Context& ctx, const Fill& op) {
  constexpr const char* kOp = "fill";
  require_vec(kOp, "y", op.y, op.y.size);
  const ProfileOpScope profile(ctx, kOp, 0, f32_bytes(op.y.size));
  dispatch<cpu::fill, cuda::fill>(ctx, kOp, op);
}

void nested_sum(const Context& ctx, const NestedSum& op) {
  constexpr const char* kOp = "nested_sum";
  const int64_t count = op.parts.size();
  if (count < 2) fail("{}: there are {} parts; there must be at least 2", kOp, count);
  require_vec(kOp, "out", op.out, op.out.size);
  const ProfileOpScope profile(ctx, "add shards", 0, f32_bytes((count + 1) * op.out.size));
  dispatch<cpu::nested_sum, cuda::nested_sum>(ctx, kOp, op);
}

void tree_sum(const Context& ctx, const TreeSum& op) {
  constexpr const char* kOp = "tree_sum";
  constexpr int64_t kMostParts = int64_t{1} << kMaxTreeLevels;
  const int64_t count = op.parts.size();
  if (count < 2 || count > kMostParts || (count & (count - 1)) != 0) {
    fail("{}: there are {} parts; there must be a power of two, at least 2 and at most {}", kOp,
         count, kMostParts);
  }
  require_vec(kOp, "out", op.out, op.out.size);
  dispatch<cpu::tree_sum, cuda::tree_sum>(ctx, kOp, op);
}

}  // namespace orrery::kernels
