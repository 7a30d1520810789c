// Elements of f32 and bf16 matrices as vectors of floats, for inclusion in per-target
// code (after targets.h): load_floats(d, p) and store_floats(v, d, p) for any float tag
// d. A store to bf16 rounds to nearest even and keeps NaN, with the bits of to_bf16
// (core/dtype.h).
#include "core/dtype.h"

#if defined(ORRERY_KERNELS_CPU_BF16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_BF16_INL_H_
#undef ORRERY_KERNELS_CPU_BF16_INL_H_
#else
#define ORRERY_KERNELS_CPU_BF16_INL_H_
#endif

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V load_floats(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D, class V = hn::VFromD<D>>
HWY_INLINE V load_floats(D d, const Bf16* p) {
  const hn::RebindToUnsigned<D> d32;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, bits)));
}

template <class D, class V>
HWY_INLINE void store_floats(V v, D d, float* p) {
  hn::StoreU(v, d, p);
}
template <class D, class V>
HWY_INLINE void store_floats(V v, D /*d*/, Bf16* p) {
  const hn::RebindToUnsigned<D> d32;
  const hn::Rebind<uint16_t, D> d16;
  const auto bits = hn::BitCast(d32, v);
  const auto high = hn::ShiftRight<16>(bits);
  const auto to_even = hn::Add(hn::And(high, hn::Set(d32, 1)), hn::Set(d32, 0x7FFF));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, to_even));
  const auto quiet = hn::Or(high, hn::Set(d32, 0x40));
  const auto result = hn::IfThenElse(hn::RebindMask(d32, hn::IsNaN(v)), quiet, rounded);
  hn::StoreU(hn::TruncateTo(d16, result), d16, reinterpret_cast<uint16_t*>(p));
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
