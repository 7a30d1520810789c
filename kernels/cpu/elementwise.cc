#include "kernels/cpu/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements of a part that tree_sum_block takes at a time.
inline constexpr int64_t kTreeBlock = 512;

void sum_elements(float* y, const float* a, const float* b, int64_t count) {
  for_each16(count, [&](int64_t i, auto io)
                        HWY_ATTR { io.store(y + i, add(io.load(a + i), io.load(b + i))); });
}

/// Elements [begin, end) of out = the first part + (the second + (... + the last)).
void nested_sum_elements(Span<const float* const> parts, int64_t begin, int64_t end, float* out) {
  const int64_t last = parts.size() - 1;
  for_each16(end - begin, [&](int64_t i, auto io) HWY_ATTR {
    Lanes sum = io.load(parts[last] + begin + i);
    for (int64_t p = last - 1; p >= 0; --p) sum = add(io.load(parts[p] + begin + i), sum);
    io.store(out + begin + i, sum);
  });
}

/// out = elements [begin, begin + count) of the parts, at least two, summed in tree
/// order. scratch: two blocks for each level of the tree. out may lie in one of the
/// parts, because it is written when all of them have been read.
void tree_sum_block(Span<const float* const> parts, int64_t begin, int64_t count, float* out,
                    float* scratch) {
  const int64_t half = parts.size() / 2;
  if (half == 1) {
    sum_elements(out, parts[0] + begin, parts[1] + begin, count);
    return;
  }
  float *left = scratch, *right = scratch + kTreeBlock, *below = scratch + 2 * kTreeBlock;
  tree_sum_block(parts.first(half), begin, count, left, below);
  tree_sum_block(parts.subspan(half), begin, count, right, below);
  sum_elements(out, left, right, count);
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

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/parallel.h"
#include "kernels/checks.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(sum_elements);
HWY_EXPORT(nested_sum_elements);
HWY_EXPORT(tree_sum_elements);

void fill(const Context& ctx, const Fill& op) {
  parallel_for(ctx, op.y.size, kStreamGrain, [&](int64_t begin, int64_t end) {
    float* y = op.y.data + begin;
    if (std::bit_cast<uint32_t>(op.value) == 0) {
      std::memset(y, 0, (end - begin) * sizeof(float));
    } else {
      std::fill_n(y, end - begin, op.value);
    }
  });
}

void nested_sum(const Context& ctx, const NestedSum& op) {
  parallel_for(ctx, op.out.size, kStreamGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(nested_sum_elements)(op.parts, begin, end, op.out.data);
  });
}

void tree_sum(const Context& ctx, const TreeSum& op) {
  parallel_for(ctx, op.out.size, kStreamGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(tree_sum_elements)(op.parts, begin, end, op.out.data);
  });
}

void add_elements(float* y, const float* a, const float* b, int64_t count) {
  HWY_DYNAMIC_DISPATCH(sum_elements)(y, a, b, count);
}

}  // namespace orrery::kernels::cpu
#endif
