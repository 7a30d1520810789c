#include "kernels/cpu/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements of a part that tree_sum_block takes at a time.
inline constexpr int64_t kTreeBlock = 512;

void add_elements(float* y, const float* a, const float* b, int64_t count) {
  for_each16(count, [&](int64_t i, auto io)
                        HWY_ATTR { io.store(y + i, add(io.load(a + i), io.load(b + i))); });
}

/// out = elements [begin, begin + count) of the parts, at least two, summed in tree
/// order. scratch: two blocks for each level of the tree. out may lie in one of the
/// parts, because it is written when all of them have been read.
void tree_sum_block(Span<const float* const> parts, int64_t begin, int64_t count, float* out,
                    float* scratch) {
  const int64_t half = parts.size() / 2;
  if (half == 1) {
    add_elements(out, parts[0] + begin, parts[1] + begin, count);
    return;
  }
  float *left = scratch, *right = scratch + kTreeBlock, *below = scratch + 2 * kTreeBlock;
  tree_sum_block(parts.first(half), begin, count, left, below);
  tree_sum_block(parts.subspan(half), begin, count, right, below);
  add_elements(out, left, right, count);
}

/// Elements [begin, end) of the sum. A block of every part at a time, so that what lies
/// between stays in the first-level cache.
void tree_sum_elements(Span<const float* const> parts, int64_t begin, int64_t end, float* out) {
  float scratch[2 * kTreeBlock * kMaxTreeLevels];
  for (int64_t at = begin; at < end; at += kTreeBlock)
    tree_sum_block(parts, at, std::min(kTreeBlock, end - at), out + at, scratch);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>

#include "core/parallel.h"
#include "kernels/checks.h"

namespace orrery::kernels {
HWY_EXPORT(add_elements);
HWY_EXPORT(tree_sum_elements);

void zero_cpu(const Context& ctx, Span<float> y) {
  parallel_for(ctx, y.size(), kStreamGrain, [&](int64_t begin, int64_t end) {
    std::memset(y.data() + begin, 0, (end - begin) * sizeof(float));
  });
}

void accumulate_cpu(const Context& ctx, Span<float> y, Span<const float> x) {
  parallel_for(ctx, y.size(), kStreamGrain, [&](int64_t begin, int64_t end) {
    add_cpu(y.data() + begin, y.data() + begin, x.data() + begin, end - begin);
  });
}

void tree_sum_cpu(const Context& ctx, Span<float> out, Span<const float* const> parts) {
  parallel_for(ctx, out.size(), kStreamGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(tree_sum_elements)(parts, begin, end, out.data());
  });
}

void add_cpu(float* y, const float* a, const float* b, int64_t count) {
  HWY_DYNAMIC_DISPATCH(add_elements)(y, a, b, count);
}

}  // namespace orrery::kernels
#endif
