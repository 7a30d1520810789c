// Steps of dot16 chains (kernels/dot16.h) on vectors of one SIMD target: a row of A
// times a panel of 64 columns of B, 16 inner indices at a time.
//
// Where the largest exponent of a row's group is e, this multiplies by a' = a 2^-e and
// keeps a's deficit, which is e minus a's own exponent. The largest exponent among a
// sum's products is then e + max(b's exponent - a's deficit), found in bytes that
// saturate at 0: no exponent survives the deficit of a zero of A, and a zero of B has
// the exponent 0. The products a' b are exact as floats, and so is their scaling to
// units of the step's last place; a conversion to int32 cuts them toward zero, and adds
// of int32 are exact.
//
// That holds where no number is extreme; Limits says where. Sums to which it does not
// apply are computed by the model one by one, which is right for all and slow.
#include "kernels/cpu/dot16_pack-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_DOT16_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_DOT16_INL_H_
#undef ORRERY_KERNELS_CPU_DOT16_INL_H_
#else
#define ORRERY_KERNELS_CPU_DOT16_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cpu/dot16.h"
#include "kernels/dot16.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace dot16 {

/// x cut toward zero. REQUIRES: it fits, or the result is not used. (Highway mends
/// conversions that overflow, for two instructions more.)
HWY_INLINE VI cut(VF x) {
#if HWY_TARGET == HWY_AVX3
  return VI{_mm512_cvttps_epi32(x.raw)};
#elif HWY_TARGET == HWY_AVX2
  return VI{_mm256_cvttps_epi32(x.raw)};
#else
  return hn::ConvertTo(I(), x);
#endif
}

/// 16 elements of a row of A as they are, for the model.
struct RawRow {
  const Bf16* from;
  int64_t inner, count;
};

/// The model's step of one column.
inline float step_alone(const RawRow& row, const Columns& b, int column, float sum) {
  uint16_t x[kStep] = {}, y[kStep];
  for (int64_t k = 0; k < row.count; ++k) x[k] = row.from[k * row.inner].bits;
  for (int k = 0; k < kStep; ++k)
    y[k] = static_cast<uint16_t>(std::bit_cast<uint32_t>(b.values[k][column]) >> 16);
  return std::bit_cast<float>(dot_step(x, y, std::bit_cast<uint32_t>(sum), kDot16Rz25));
}

/// Byte q of each word as an exponent field in its place.
template <int q>
HWY_INLINE VI field_of(VBytes bytes) {
  const VU words = hn::BitCast(U(), bytes);
  const VU moved =
      q == 3 ? hn::ShiftRight<1>(words) : hn::ShiftLeft<(q == 3 ? 0 : 23 - 8 * q)>(words);
  return hn::And(hn::BitCast(I(), moved), hn::Set(I(), kFieldMask));
}

constexpr int32_t in_place(int field) {
  return static_cast<int32_t>(static_cast<uint32_t>(field) << kFieldShift);
}

/// Steps of four vectors of sums, one of each block. `bytes` are the largest fields.
struct Slab {
  const Row& a;
  const Columns& b;
  float* sums;  ///< of the first lane
  int first;    ///< its column

  VF before[kBlocks], after[kBlocks];
  VI accumulator_fields[kBlocks], step_fields[kBlocks];
  VU magnitudes[kBlocks];

  HWY_INLINE void compute(VBytes bytes) {
    const F d;
    const I di;
    const VI a_field = hn::Set(di, in_place(a.largest - kBias));
    VI scale[kBlocks], sum[kBlocks];
    VF product_scale[kBlocks];
    const auto begin = [&](int q, VI largest) HWY_ATTR {
      before[q] = hn::LoadU(d, sums + kBlock * q);
      accumulator_fields[q] = hn::And(hn::BitCast(di, before[q]), hn::Set(di, kFieldMask));
      step_fields[q] = hn::Max(hn::Add(largest, a_field), accumulator_fields[q]);
      // 2^(25 - E), and for a' b the same times 2^e.
      scale[q] =
          hn::Sub(hn::Set(di, in_place(2 * kBias + kDot16Rz25.fraction_bits)), step_fields[q]);
      product_scale[q] = hn::BitCast(d, hn::Max(hn::Add(scale[q], a_field), hn::Zero(di)));
      sum[q] = cut(hn::Mul(before[q], hn::BitCast(d, scale[q])));
    };
    begin(0, field_of<0>(bytes));
    begin(1, field_of<1>(bytes));
    begin(2, field_of<2>(bytes));
    begin(3, field_of<3>(bytes));
    HWY_UNROLL(16)
    for (int k = 0; k < kStep; ++k) {
      const VF x = hn::Set(d, a.values[k]);
      HWY_UNROLL(4)
      for (int q = 0; q < kBlocks; ++q) {
        const VF product = hn::Mul(x, hn::Load(d, b.values[k] + kBlock * q + first));
        sum[q] = hn::Add(sum[q], cut(hn::Mul(product, product_scale[q])));
      }
    }
    HWY_UNROLL(4)
    for (int q = 0; q < kBlocks; ++q) {
      magnitudes[q] = hn::BitCast(U(), hn::Abs(sum[q]));
      // Without the bit below the last one that a float keeps, it is not rounded up.
      const VU even = hn::AndNot(hn::ShiftRight<24>(magnitudes[q]), magnitudes[q]);
      const VF value = hn::ConvertTo(d, hn::BitCast(di, even));
      const VI back = hn::Sub(hn::Set(di, in_place(2 * kBias)), scale[q]);
      after[q] = hn::Mul(hn::CopySignToAbs(value, hn::BitCast(d, sum[q])), hn::BitCast(d, back));
    }
  }

  static HWY_INLINE auto within(VU magnitude, VI field) {
    const VU most = hn::Set(U(), Limits::kMostSum);
    const auto fits = hn::RebindMask(I(), hn::Eq(hn::Max(magnitude, most), most));
    return hn::And(fits, hn::Lt(field, hn::Set(I(), kFieldMask)));
  }

  /// Whether the sums and accumulators of block q are within the limits.
  HWY_INLINE auto within(int q) const { return within(magnitudes[q], accumulator_fields[q]); }
  /// Whether those of all lanes are.
  HWY_INLINE bool all_within() const {
    const auto largest = [](const auto* v)
                             HWY_ATTR { return hn::Max(hn::Max(v[0], v[1]), hn::Max(v[2], v[3])); };
    return hn::AllTrue(I(), within(largest(magnitudes), largest(accumulator_fields)));
  }

  HWY_INLINE void store(int q, VF v) const { hn::StoreU(v, F(), sums + kBlock * q); }
};

/// Where a product is not zero, in the lanes of columns `first` on.
HWY_INLINE auto has_product(const Row& a, const Columns& b, int first) {
  VU bits = hn::Zero(U());
  for (int k = 0; k < kStep; ++k) {
    if ((a.deficits[k] & 0xffu) == kNoExponent) continue;
    bits = hn::Or(bits, hn::BitCast(U(), hn::Load(F(), b.values[k] + first)));
  }
  return hn::Ne(hn::BitCast(I(), hn::ShiftLeft<1>(bits)), hn::Zero(I()));
}

/// A slab some of whose lanes may be outside the limits: without products a sum stays
/// as it is, with them the model computes it.
template <int q>
HWY_INLINE void store_block(const Slab& slab, VBytes bytes, const RawRow& raw) {
  const I di;
  const int column = slab.first + kBlock * q;
  const int least = std::max(Limits::kLeast, slab.b.largest - Limits::kBelowB);
  const auto live = has_product(slab.a, slab.b, column);
  const auto exact =
      hn::And(hn::And(slab.within(q), hn::Gt(field_of<q>(bytes), hn::Set(di, in_place(least - 1)))),
              hn::Gt(slab.step_fields[q], hn::Set(di, in_place(Limits::kLeastStep) - 1)));
  alignas(64) int32_t alone[kLanes];
  hn::Store(hn::VecFromMask(di, hn::AndNot(exact, live)), di, alone);
  slab.store(
      q, hn::IfThenElse(hn::RebindMask(F(), hn::And(live, exact)), slab.after[q], slab.before[q]));
  for (int i = 0; i < kLanes; ++i) {
    float& sum = slab.sums[kBlock * q + i];
    if (alone[i] != 0) sum = step_alone(raw, slab.b, column + i, sum);
  }
}

/// Adds 16 products to each of a row's 64 sums, none of which is -0 or another NaN than
/// the model's.
HWY_INLINE void step_row(const Row& a, const RawRow& raw, const Columns& b, float* sums) {
  if (a.largest > Limits::kMostA || b.largest > Limits::kMostB ||
      a.largest - kBias + b.largest > 2 * kBias) {
    for (int j = 0; j < kPanel; ++j) sums[j] = step_alone(raw, b, j, sums[j]);
    return;
  }
  if (a.largest == 0) return;
  const int least = std::max(
      {Limits::kLeast, b.largest - Limits::kBelowB, Limits::kLeastStep - (a.largest - kBias)});
  const VBytes floor = hn::Set(Bytes(), static_cast<uint8_t>(std::min(least, 255)));
  HWY_UNROLL(4)
  for (int w = 0; w < kBlock; w += kLanes) {
    VBytes bytes = hn::Zero(Bytes());
    HWY_UNROLL(16)
    for (int k = 0; k < kStep; ++k) {
      const VBytes fields = hn::BitCast(Bytes(), hn::Load(U(), b.fields[k] + w));
      const VBytes deficit = hn::BitCast(Bytes(), hn::Set(U(), a.deficits[k]));
      bytes = hn::Max(bytes, hn::SaturatedSub(fields, deficit));
    }
    Slab slab{.a = a, .b = b, .sums = sums + w, .first = w};
    slab.compute(bytes);
    if (hn::AllTrue(Bytes(), hn::Eq(hn::Max(bytes, floor), bytes)) && slab.all_within()) {
      HWY_UNROLL(4)
      for (int q = 0; q < kBlocks; ++q) slab.store(q, slab.after[q]);
    } else {
      store_block<0>(slab, bytes, raw);
      store_block<1>(slab, bytes, raw);
      store_block<2>(slab, bytes, raw);
      store_block<3>(slab, bytes, raw);
    }
  }
}

}  // namespace dot16
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
