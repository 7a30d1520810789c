// Sums along a row in the lanes of a class of numerics: 16 of them, or the 256 of
// dot16-rz25 (docs/numerics.md), with the same bits on any target. Include it after
// targets.h.
//
//   const auto term = [&](int64_t i, auto io, Lanes acc) HWY_ATTR {
//     const Lanes x = io.load(row + i);
//     return mul_add(x, x, acc);
//   };
//   const float sum = lanes_sum(numerics, count, term);
//
// Elements that a block lacks are loaded as `fill` (lanes-inl.h), which must leave acc
// as it is.
#include <cstdint>

#include "kernels/numerics.h"

#if defined(ORRERY_KERNELS_CPU_LANES_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_LANES_SUM_INL_H_
#undef ORRERY_KERNELS_CPU_LANES_SUM_INL_H_
#else
#define ORRERY_KERNELS_CPU_LANES_SUM_INL_H_
#endif

#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

template <class Term>
HWY_INLINE float sum_in_16_lanes(int64_t count, const Term& term) {
  Lanes acc = set16(0.0f);
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR { acc = term(i, io, acc); });
  return sum16(acc);
}

/// Element i is added to lane i mod 256; the lanes are folded 128, 64, ..., 1.
template <class Term>
HWY_INLINE float sum_in_256_lanes(int64_t count, const Term& term) {
  constexpr int64_t kBlocks = 16;  // of 16 lanes each
  Lanes acc[kBlocks];
  for (Lanes& block : acc) block = set16(0.0f);
  // Lanes do not depend on one another, so 64 of them at a time walk over the row: as
  // many as stay in registers on every target.
  constexpr int64_t kStep = 64, kAllLanes = 256;
  for (int64_t first = 0; first < kAllLanes; first += kStep) {
    Lanes* const to = acc + first / kSumLanes;
    Lanes a0 = to[0], a1 = to[1], a2 = to[2], a3 = to[3];
    for (int64_t i = first; i + kStep <= count; i += kAllLanes) {
      a0 = term(i, WholeBlock{}, a0);
      a1 = term(i + kSumLanes, WholeBlock{}, a1);
      a2 = term(i + 2 * kSumLanes, WholeBlock{}, a2);
      a3 = term(i + 3 * kSumLanes, WholeBlock{}, a3);
    }
    to[0] = a0, to[1] = a1, to[2] = a2, to[3] = a3;
  }
  // What is left are the last elements of their lanes.
  const int64_t rest = count / kStep * kStep;
  for_each16(count - rest, [&](int64_t i, auto io) HWY_ATTR {
    Lanes& block = acc[(rest + i) / kSumLanes % kBlocks];
    block = term(rest + i, io, block);
  });
  for (int64_t half = kBlocks / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) acc[j] = add(acc[j], acc[j + half]);
  }
  return sum16(acc[0]);
}

/// term(i, io, acc) returns acc with the elements that io loads at offset i.
template <class Term>
HWY_INLINE float lanes_sum(NumericsClass numerics, int64_t count, const Term& term) {
  return numerics == NumericsClass::kDot16 ? sum_in_256_lanes(count, term)
                                           : sum_in_16_lanes(count, term);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
