// Sixteen float lanes on any target: one vector of AVX-512, two of AVX2, four of NEON.
// A kernel written in them gives the same bits everywhere, because element i of a row
// is always in lane i mod 16 and sum16 folds 8, 4, 2, 1 (docs/numerics.md). Include it
// after targets.h.
//
//   Lanes acc = set16(0.0f);
//   for_each16(count, [&](int64_t i, auto io) HWY_ATTR {
//     const Lanes x = io.load(row + i);
//     acc = mul_add(x, x, acc);
//     io.store(y + i, mul(x, scale));
//   });
//   const float sum = sum16(acc);
//
// for_each16 walks over whole blocks of 16, then over the rest. Elements that the rest
// lacks are loaded as `fill` (load's second argument, 0 by default) and not stored.
// Elements are float or Bf16, which a store rounds to nearest even.
#include <algorithm>
#include <cstdint>

#include "kernels/numerics.h"

#if defined(ORRERY_KERNELS_CPU_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_LANES_INL_H_
#undef ORRERY_KERNELS_CPU_LANES_INL_H_
#else
#define ORRERY_KERNELS_CPU_LANES_INL_H_
#endif

#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

using LaneTag = hn::CappedTag<float, kSumLanes>;

/// Two halves: lanes 0 .. n/2 - 1 and n/2 .. n - 1.
template <class T>
struct Halves {
  T lo, hi;
  // Written out, for GCC gives implied ones the baseline's instruction set, which on
  // Arm is not the target's.
  HWY_INLINE Halves() {}
  HWY_INLINE Halves(T low, T high) : lo(low), hi(high) {}
};

template <size_t kVectors>
struct LanesOf {
  using Type = Halves<typename LanesOf<kVectors / 2>::Type>;
};
template <>
struct LanesOf<1> {
  using Type = hn::Vec<LaneTag>;
};

using Lanes = LanesOf<kSumLanes / hn::MaxLanes(LaneTag())>::Type;

/// Applies f to the vectors of its arguments, part by part.
template <class F, class V, class... Vs>
HWY_INLINE V each(const F& f, V a, Vs... more) {
  return f(a, more...);
}
template <class F, class T, class... Ts>
HWY_INLINE Halves<T> each(const F& f, Halves<T> a, Ts... more) {
  return {each(f, a.lo, more.lo...), each(f, a.hi, more.hi...)};
}

template <class E>
HWY_INLINE void load_parts(const E* p, hn::Vec<LaneTag>& v) {
  v = load_floats(LaneTag(), p);
}
template <class E, class T>
HWY_INLINE void load_parts(const E* p, Halves<T>& v) {
  load_parts(p, v.lo);
  load_parts(p + sizeof(T) / sizeof(float), v.hi);
}
template <class E>
HWY_INLINE void store_parts(hn::Vec<LaneTag> v, E* p) {
  store_floats(v, LaneTag(), p);
}
template <class T, class E>
HWY_INLINE void store_parts(Halves<T> v, E* p) {
  store_parts(v.lo, p);
  store_parts(v.hi, p + sizeof(T) / sizeof(float));
}

HWY_INLINE void set_parts(float x, hn::Vec<LaneTag>& v) { v = hn::Set(LaneTag(), x); }
template <class T>
HWY_INLINE void set_parts(float x, Halves<T>& v) {
  set_parts(x, v.lo);
  v.hi = v.lo;
}

HWY_INLINE Lanes set16(float x) {
  Lanes v;
  set_parts(x, v);
  return v;
}
template <class E>
HWY_INLINE Lanes load16(const E* p) {
  Lanes v;
  load_parts(p, v);
  return v;
}
template <class E>
HWY_INLINE void store16(E* p, Lanes v) {
  store_parts(v, p);
}

HWY_INLINE Lanes add(Lanes a, Lanes b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Add(x, y); }, a, b);
}
HWY_INLINE Lanes sub(Lanes a, Lanes b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Sub(x, y); }, a, b);
}
HWY_INLINE Lanes mul(Lanes a, Lanes b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Mul(x, y); }, a, b);
}
HWY_INLINE Lanes div(Lanes a, Lanes b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Div(x, y); }, a, b);
}
HWY_INLINE Lanes neg(Lanes a) {
  return each([](auto x) HWY_ATTR { return hn::Neg(x); }, a);
}
HWY_INLINE Lanes sqrt16(Lanes a) {
  return each([](auto x) HWY_ATTR { return hn::Sqrt(x); }, a);
}
/// The larger; which of two zeros, and what becomes of a NaN, depends on the target.
HWY_INLINE Lanes max16(Lanes a, Lanes b) {
  return each([](auto x, auto y) HWY_ATTR { return hn::Max(x, y); }, a, b);
}
/// a b + c, rounded once.
HWY_INLINE Lanes mul_add(Lanes a, Lanes b, Lanes c) {
  return each([](auto x, auto y, auto z) HWY_ATTR { return hn::MulAdd(x, y, z); }, a, b, c);
}
/// c - a b, rounded once.
HWY_INLINE Lanes neg_mul_add(Lanes a, Lanes b, Lanes c) {
  return each([](auto x, auto y, auto z) HWY_ATTR { return hn::NegMulAdd(x, y, z); }, a, b, c);
}
HWY_INLINE Lanes exp16(Lanes a) {
  return each([](auto x) HWY_ATTR { return exp_f32(LaneTag(), x); }, a);
}

/// Combines lane j with lane j + 8, then 4, 2, 1 by f (float or vectors).
template <class F, class V>
HWY_INLINE float fold(const F& f, V v) {
  const hn::DFromV<V> d;
  if constexpr (hn::MaxLanes(d) > 4) {
    const hn::Half<decltype(d)> half;
    return fold(f, f(hn::LowerHalf(half, v), hn::UpperHalf(half, v)));
  } else {
    const auto low = f(v, hn::ConcatUpperUpper(d, v, v));
    return hn::GetLane(f(low, hn::Shuffle2301(low)));
  }
}
template <class F, class T>
HWY_INLINE float fold(const F& f, Halves<T> v) {
  return fold(f, each(f, v.lo, v.hi));
}
HWY_INLINE float sum16(Lanes v) {
  return fold([](auto x, auto y) HWY_ATTR { return hn::Add(x, y); }, v);
}
HWY_INLINE float largest16(Lanes v) {
  return fold([](auto x, auto y) HWY_ATTR { return hn::Max(x, y); }, v);
}

/// A block whose 16 elements are all there.
struct WholeBlock {
  template <class E>
  HWY_INLINE Lanes load(const E* p, float /*fill*/ = 0.0f) const {
    return load16(p);
  }
  template <class E>
  HWY_INLINE void store(E* p, Lanes v) const {
    store16(p, v);
  }
};

HWY_INLINE void load_part(const float* p, int64_t count, float fill, hn::Vec<LaneTag>& v) {
  const LaneTag d;
  const int64_t lanes = hn::Lanes(d);
  if constexpr (hn::MaxLanes(LaneTag()) == 4) {  // NEON's masked load reads the whole vector
    alignas(16) float part[4] = {fill, fill, fill, fill};
    for (int64_t i = 0; i < std::min(count, lanes); ++i) part[i] = p[i];
    v = hn::Load(d, part);
  } else {
    const auto mask = hn::FirstN(d, std::clamp<int64_t>(count, 0, lanes));
    v = hn::IfThenElse(mask, hn::MaskedLoad(mask, d, p), hn::Set(d, fill));
  }
}
template <class T>
HWY_INLINE void load_part(const float* p, int64_t count, float fill, Halves<T>& v) {
  constexpr int64_t kHalf = sizeof(T) / sizeof(float);
  load_part(p, count, fill, v.lo);
  load_part(p + kHalf, count - kHalf, fill, v.hi);
}
HWY_INLINE void store_part(hn::Vec<LaneTag> v, int64_t count, float* p) {
  const LaneTag d;
  const int64_t lanes = hn::Lanes(d);
  if constexpr (hn::MaxLanes(LaneTag()) == 4) {
    alignas(16) float part[4];
    hn::Store(v, d, part);
    for (int64_t i = 0; i < std::min(count, lanes); ++i) p[i] = part[i];
  } else {
    hn::BlendedStore(v, hn::FirstN(d, std::clamp<int64_t>(count, 0, lanes)), d, p);
  }
}
template <class T>
HWY_INLINE void store_part(Halves<T> v, int64_t count, float* p) {
  constexpr int64_t kHalf = sizeof(T) / sizeof(float);
  store_part(v.lo, count, p);
  store_part(v.hi, count - kHalf, p + kHalf);
}

/// A block of which only the first `count` < 16 elements are there. Nothing else is
/// touched.
struct PartBlock {
  int64_t count;
  HWY_INLINE Lanes load(const float* p, float fill = 0.0f) const {
    Lanes v;
    load_part(p, count, fill, v);
    return v;
  }
  HWY_INLINE Lanes load(const Bf16* p, float fill = 0.0f) const {
    alignas(64) float part[kSumLanes];
    for (int64_t i = 0; i < kSumLanes; ++i) part[i] = i < count ? to_f32(p[i]) : fill;
    return load16(part);
  }
  HWY_INLINE void store(float* p, Lanes v) const { store_part(v, count, p); }
  HWY_INLINE void store(Bf16* p, Lanes v) const {
    alignas(64) float part[kSumLanes];
    store16(part, v);
    for (int64_t i = 0; i < count; ++i) p[i] = to_bf16(part[i]);
  }
};

/// body(i, io) for i = 0, 16, 32, ... < count, where io loads and stores at offset i.
template <class Body>
HWY_INLINE void for_each16(int64_t count, const Body& body) {
  int64_t i = 0;
  for (; i + kSumLanes <= count; i += kSumLanes) body(i, WholeBlock{});
  if (i < count) body(i, PartBlock{count - i});
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
