// exp, exp2 and log of a vector, for inclusion in per-target code (after targets.h):
// exp_f32(d, x), exp2_f32(d, x) and log_f32(d, x) for any float tag d, with the bits of
// scalar_math.h in each lane. The scalar functions are kernels::exp_f32(x) and so on.
#include "kernels/scalar_math.h"

#if defined(ORRERY_KERNELS_CPU_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_MATH_INL_H_
#undef ORRERY_KERNELS_CPU_MATH_INL_H_
#else
#define ORRERY_KERNELS_CPU_MATH_INL_H_
#endif

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V exp_f32(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, kRoundMagic);
  const V t = hn::MulAdd(x, hn::Set(d, kLog2E), magic);
  const V n = hn::Sub(t, magic);
  V r = hn::MulAdd(n, hn::Set(d, -kLn2High), x);
  r = hn::MulAdd(n, hn::Set(d, -kLn2Low), r);
  const V one = hn::Set(d, 1.0f);
  V p = hn::MulAdd(hn::Set(d, exp_poly(4)), r, hn::Set(d, exp_poly(3)));
  p = hn::MulAdd(p, r, hn::Set(d, exp_poly(2)));
  p = hn::MulAdd(p, r, hn::Set(d, exp_poly(1)));
  p = hn::MulAdd(p, r, hn::Set(d, exp_poly(0)));
  p = hn::MulAdd(p, r, one);
  p = hn::MulAdd(p, r, one);
  // The magic number's own low bits are 0 after the shift, 127 of bias are not.
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, t), hn::Set(di, 127)));
  const V y = hn::Mul(p, hn::BitCast(d, exponent));  // NaN stays NaN: a product, not an integer add
  const V bounded = hn::IfThenElse(hn::Gt(x, hn::Set(d, kExpOverflow)), hn::Inf(d), y);
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, kExpUnderflow)), hn::Zero(d), bounded);
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V exp2_f32(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, kRoundMagic);
  const V t = hn::Add(x, magic);
  const V r = hn::Sub(x, hn::Sub(t, magic));
  V p = hn::MulAdd(hn::Set(d, exp2_poly(4)), r, hn::Set(d, exp2_poly(3)));
  p = hn::MulAdd(p, r, hn::Set(d, exp2_poly(2)));
  p = hn::MulAdd(p, r, hn::Set(d, exp2_poly(1)));
  p = hn::MulAdd(p, r, hn::Set(d, exp2_poly(0)));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const auto exponent = hn::ShiftLeft<23>(hn::Add(hn::BitCast(di, t), hn::Set(di, 127)));
  const V y = hn::Mul(p, hn::BitCast(d, exponent));  // as in exp_f32
  const V bounded = hn::IfThenElse(hn::Ge(x, hn::Set(d, kExp2Overflow)), hn::Inf(d), y);
  return hn::IfThenElse(hn::Lt(x, hn::Set(d, kExp2Underflow)), hn::Zero(d), bounded);
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V log_f32(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto sqrt_half = hn::Set(di, kSqrtHalfBits);
  const auto offset = hn::Sub(hn::BitCast(di, x), sqrt_half);
  const V e = hn::ConvertTo(d, hn::ShiftRight<23>(offset));
  const V m = hn::BitCast(d, hn::Add(hn::And(offset, hn::Set(di, 0x7fffff)), sqrt_half));
  const V f = hn::Sub(m, hn::Set(d, 1.0f));
  V p = hn::MulAdd(hn::Set(d, log_poly(7)), f, hn::Set(d, log_poly(6)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(5)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(4)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(3)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(2)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(1)));
  p = hn::MulAdd(p, f, hn::Set(d, log_poly(0)));
  p = hn::MulAdd(p, f, hn::Set(d, -0.5f));
  const V tail = hn::MulAdd(e, hn::Set(d, kLn2Low), hn::Mul(p, hn::Mul(f, f)));
  V y = hn::MulAdd(e, hn::Set(d, kLn2High), hn::Add(f, tail));
  y = hn::IfThenElse(hn::Lt(x, hn::Set(d, std::numeric_limits<float>::min())), hn::Neg(hn::Inf(d)),
                     y);
  y = hn::IfThenElse(hn::Eq(x, hn::Inf(d)), x, y);
  y = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::NaN(d), y);
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
