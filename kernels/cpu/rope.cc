#include "kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::HWY_NAMESPACE {

/// Rotates the `heads` vectors of one token by the angles whose cos and sin are given.
void rope_rotate(float* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    for_each16(half, [&](int64_t i, auto io) HWY_ATTR {
      const Lanes a = io.load(x + i);
      const Lanes b = io.load(x + half + i);
      const Lanes c = io.load(cos + i);
      const Lanes s = io.load(sin + i);
      io.store(x + i, neg_mul_add(b, s, mul(a, c)));
      io.store(x + half + i, mul_add(a, s, mul(b, c)));
    });
  }
}

/// The transposed rotation.
void rope_rotate_back(float* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    for_each16(half, [&](int64_t i, auto io) HWY_ATTR {
      const Lanes a = io.load(x + i);
      const Lanes b = io.load(x + half + i);
      const Lanes c = io.load(cos + i);
      const Lanes s = io.load(sin + i);
      io.store(x + i, mul_add(b, s, mul(a, c)));
      io.store(x + half + i, neg_mul_add(a, s, mul(b, c)));
    });
  }
}

}  // namespace orrery::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"

namespace orrery {
HWY_EXPORT(rope_rotate);
HWY_EXPORT(rope_rotate_back);

namespace {

template <class Rotate>
void rotate_tokens(const Context& ctx, Heads<float> x, std::span<const int32_t> positions,
                   const RopeTable& table, const Rotate& rotate) {
  const int64_t width = std::max<int64_t>(x.heads * x.head_dim, 1);
  parallel_for(ctx, x.tokens, kStreamGrain / width, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t offset = positions[static_cast<size_t>(t)] * table.half_dim;
      rotate(x.at(t, 0), x.heads, table.half_dim, table.cos.data() + offset, table.sin.data() + offset);
    }
  });
}

}  // namespace

void rope_forward_cpu(const Context& ctx, Heads<float> x, std::span<const int32_t> positions,
                      const RopeTable& table) {
  rotate_tokens(ctx, x, positions, table, HWY_DYNAMIC_DISPATCH(rope_rotate));
}

void rope_backward_cpu(const Context& ctx, Heads<float> dx, std::span<const int32_t> positions,
                       const RopeTable& table) {
  rotate_tokens(ctx, dx, positions, table, HWY_DYNAMIC_DISPATCH(rope_rotate_back));
}

}  // namespace orrery
#endif
