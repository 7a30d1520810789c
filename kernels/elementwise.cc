#include "kernels/elementwise.h"

#include "core/profile.h"
#include "kernels/checks.h"
#include "kernels/cpu/elementwise.h"

namespace orrery::kernels {

void zero(const Context& ctx, Span<float> y) {
  require_cpu(ctx, "zero");
  const ProfileOpScope profile(ctx, "zero gradient", 0, f32_bytes(y.size()));
  zero_cpu(ctx, y);
}

void accumulate(const Context& ctx, Span<float> y, Span<const float> x) {
  constexpr const char* kOp = "accumulate";
  require_cpu(ctx, kOp);
  require_size(kOp, "x", x.size(), y.size());
  const ProfileOpScope profile(ctx, "add shards", 0, f32_bytes(3 * y.size()));
  accumulate_cpu(ctx, y, x);
}

void tree_sum(const Context& ctx, Span<float> out, Span<const float* const> parts) {
  constexpr const char* kOp = "tree_sum";
  require_cpu(ctx, kOp);
  constexpr int64_t kMostParts = int64_t{1} << kMaxTreeLevels;
  const int64_t count = parts.size();
  if (count < 2 || count > kMostParts || (count & (count - 1)) != 0) {
    fail("{}: there are {} parts; there must be a power of two, at least 2 and at most {}", kOp,
         count, kMostParts);
  }
  tree_sum_cpu(ctx, out, parts);
}

}  // namespace orrery::kernels
