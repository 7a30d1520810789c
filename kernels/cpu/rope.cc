#include "kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements [begin, end) of a vector and of its other half, by whole vectors of `d`.
template <bool kBack, class D>
HWY_INLINE void rotate_whole(D d, float* x, int64_t begin, int64_t end, int64_t half,
                             const float* cos, const float* sin) {
  const int64_t lanes = hn::Lanes(d);
  for (int64_t i = begin; i < end; i += lanes) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    const auto ac = hn::Mul(a, c), bc = hn::Mul(b, c);
    hn::StoreU(kBack ? hn::MulAdd(b, s, ac) : hn::NegMulAdd(b, s, ac), d, x + i);
    hn::StoreU(kBack ? hn::NegMulAdd(a, s, bc) : hn::MulAdd(a, s, bc), d, x + half + i);
  }
}

/// Rotates the `heads` vectors of one token by the angles whose cos and sin are given,
/// or with kBack by the inverse rotation. Elements do not mix, so vectors of any width
/// give the same bits: the widest that leave no rest are taken, for a masked store
/// makes the loads after it wait.
template <bool kBack>
HWY_INLINE void rotate_heads(float* x, int64_t heads, int64_t half, const float* cos,
                             const float* sin) {
  const hn::CappedTag<float, 16> d16;
  const hn::CappedTag<float, 8> d8;
  const hn::CappedTag<float, 1> d1;
  for (int64_t h = 0; h < heads; ++h, x += 2 * half) {
    if (half % 16 == 0) {
      rotate_whole<kBack>(d16, x, 0, half, half, cos, sin);
    } else {
      const int64_t whole = half / 8 * 8;
      rotate_whole<kBack>(d8, x, 0, whole, half, cos, sin);
      rotate_whole<kBack>(d1, x, whole, half, half, cos, sin);
    }
  }
}

void rope_rotate(float* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  rotate_heads<false>(x, heads, half, cos, sin);
}

void rope_rotate_back(float* x, int64_t heads, int64_t half, const float* cos, const float* sin) {
  rotate_heads<true>(x, heads, half, cos, sin);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(rope_rotate);
HWY_EXPORT(rope_rotate_back);

namespace {

template <class Rotate>
void rotate_tokens(const Context& ctx, const Rope& op, const Rotate& rotate) {
  const auto x = op.x.as<float>();
  parallel_for(
      ctx, x.rows, kStreamGrain / std::max<int64_t>(x.cols, 1), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t position = op.positions.data[t];
          rotate(row(x, t), op.heads, op.cos.cols, row(op.cos, position), row(op.sin, position));
        }
      });
}

}  // namespace

void rope_forward(const Context& ctx, const Rope& op) {
  rotate_tokens(ctx, op, HWY_DYNAMIC_DISPATCH(rope_rotate));
}

void rope_backward(const Context& ctx, const Rope& op) {
  rotate_tokens(ctx, op, HWY_DYNAMIC_DISPATCH(rope_rotate_back));
}

}  // namespace orrery::kernels::cpu
#endif
