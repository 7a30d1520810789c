#include "kernels/cpu/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rope.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/host.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// Elements [begin, end) of a vector and of its other half, by whole vectors of `d`.
template <bool kBack, class D, class T>
HWY_INLINE void rotate_whole(D d, T* x, int64_t begin, int64_t end, int64_t half, const float* cos,
                             const float* sin) {
  const int64_t lanes = hn::Lanes(d);
  for (int64_t i = begin; i < end; i += lanes) {
    const auto a = load_floats(d, x + i), b = load_floats(d, x + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    const auto ac = hn::Mul(a, c), bc = hn::Mul(b, c);
    store_floats(kBack ? hn::MulAdd(b, s, ac) : hn::NegMulAdd(b, s, ac), d, x + i);
    store_floats(kBack ? hn::NegMulAdd(a, s, bc) : hn::MulAdd(a, s, bc), d, x + half + i);
  }
}

/// Rotates the `heads` vectors of one token by the angles whose cos and sin are given,
/// or with kBack by the inverse rotation. Elements do not mix, so vectors of any width
/// give the same bits: the widest that leave no rest are taken, for a masked store
/// makes the loads after it wait.
template <bool kBack, class T>
HWY_INLINE void rotate_heads(T* x, int64_t heads, int64_t half, const float* cos,
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

template <bool kBack, class T>
HWY_INLINE void rotate_tokens(Mat<T> x, int64_t heads, const Rotation& rotation, int64_t begin,
                              int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    const int64_t position = rotation.positions.data[t];
    rotate_heads<kBack>(cpu::row(x, t), heads, rotation.cos.cols, cpu::row(rotation.cos, position),
                        cpu::row(rotation.sin, position));
  }
}

void rotate_rows(const ActMat& x, int64_t heads, const Rotation& rotation, int64_t begin,
                 int64_t end) {
  x.dtype == DType::kBF16 ? rotate_tokens<false>(x.as<Bf16>(), heads, rotation, begin, end)
                          : rotate_tokens<false>(x.as<float>(), heads, rotation, begin, end);
}

void rotate_rows_back(const ActMat& x, int64_t heads, const Rotation& rotation, int64_t begin,
                      int64_t end) {
  x.dtype == DType::kBF16 ? rotate_tokens<true>(x.as<Bf16>(), heads, rotation, begin, end)
                          : rotate_tokens<true>(x.as<float>(), heads, rotation, begin, end);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include "core/parallel.h"
#include "kernels/checks.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(rotate_rows);
HWY_EXPORT(rotate_rows_back);

namespace {

/// Calls rotate(begin, end) for the rows of x, on as many threads as pay.
template <class Rotate>
void for_rows(const Context& ctx, const ActMat& x, const Rotate& rotate) {
  const int64_t grain = kStreamGrain / std::max<int64_t>(x.cols, 1);
  parallel_for(ctx, x.rows, grain, rotate);
}

}  // namespace

void rotate(const Context& ctx, const ActMat& x, int64_t heads, const Rotation& rotation) {
  const auto rows = HWY_DYNAMIC_DISPATCH(rotate_rows);
  for_rows(ctx, x, [&](int64_t begin, int64_t end) { rows(x, heads, rotation, begin, end); });
}

void rope_backward(const Context& ctx, const RopeBackward& op) {
  const auto rows = HWY_DYNAMIC_DISPATCH(rotate_rows_back);
  for_rows(ctx, op.dx,
           [&](int64_t begin, int64_t end) { rows(op.dx, op.heads, op.rotation, begin, end); });
}

}  // namespace orrery::kernels::cpu
#endif
