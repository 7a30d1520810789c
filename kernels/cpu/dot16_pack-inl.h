// What a step of dot16 chains reads (kernels/cpu/dot16-inl.h): groups of 16 inner
// indices of a row of A, and of a panel of 64 columns of B, for one SIMD target.
#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_DOT16_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_DOT16_PACK_INL_H_
#undef ORRERY_KERNELS_CPU_DOT16_PACK_INL_H_
#else
#define ORRERY_KERNELS_CPU_DOT16_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "core/dtype.h"
#include "kernels/cpu/dot16.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace dot16 {

using cpu::kDot16;
using cpu::kDot16Panel;
using F = hn::ScalableTag<float>;
using I = hn::RebindToSigned<F>;
using U = hn::RebindToUnsigned<F>;
using Bytes = hn::Repartition<uint8_t, F>;
using VF = hn::Vec<F>;
using VI = hn::Vec<I>;
using VU = hn::Vec<U>;
using VBytes = hn::Vec<Bytes>;
inline constexpr int kLanes = int{hn::MaxLanes(F())};
inline constexpr int kStep = int{kDot16};
/// A panel is four blocks of 16 columns, and a byte of a word belongs to each.
inline constexpr int kBlocks = 4, kBlock = 16;
inline constexpr int kPanel = kBlocks * kBlock;
static_assert(kPanel == kDot16Panel);

/// The bias of an exponent field, and a field's place in a float.
inline constexpr int kBias = 127, kFieldShift = 23;
inline constexpr int32_t kFieldMask = 0x7f800000;
/// A deficit that leaves nothing of any exponent field: that of a zero.
inline constexpr uint32_t kNoExponent = 255;

/// Where vectors are exact. Fields are biased exponents.
struct Limits {
  /// An element of A with a larger deficit counts as zero.
  static constexpr int kDeficit = 100;
  /// The least field of max(b's - deficit). Products that reach a step's last place are
  /// then normal floats.
  static constexpr int kLeast = 32;
  /// That maximum may be this much below B's largest field: what lies more than
  /// kDeficit below it is then cut away.
  static constexpr int kBelowB = kDeficit - 27;
  /// Fields of the largest exponents of A and B: a' has a factor 2^-e that is a normal
  /// float, and a' b does not overflow.
  static constexpr int kMostA = 253, kMostB = 252;
  /// The least field of a step's largest exponent: its result is zero or normal.
  static constexpr int kLeastStep = 26;
  /// Sums with the accumulator stay below 2^32 - 2,097,119,236 (all terms of one sign),
  /// so an int32 that wrapped around is larger than this.
  static constexpr uint32_t kMostSum = 0x7cff8000u;
};

/// 16 inner indices of a row of A: a' = a 2^-e, where e is the largest exponent, and by
/// how much a's own exponent is less.
struct Row {
  float values[kStep];       ///< a'
  uint32_t deficits[kStep];  ///< in each byte
  int32_t largest;           ///< the field of e; 0: all are zeros
};

/// 16 inner indices of a panel of B.
struct Columns {
  alignas(64) float values[kStep][kPanel];
  /// Byte q of word w is the exponent field of column 16 q + w.
  alignas(64) uint32_t fields[kStep][kBlock];
  int32_t largest;  ///< of all fields
};

/// The largest of all bytes.
HWY_INLINE int largest_byte(VBytes bytes) {
  const auto words = hn::BitCast(U(), bytes);
  const auto half = hn::Max(bytes, hn::BitCast(Bytes(), hn::ShiftRight<16>(words)));
  const auto one = hn::Max(half, hn::BitCast(Bytes(), hn::ShiftRight<8>(hn::BitCast(U(), half))));
  const auto low = hn::And(hn::BitCast(U(), one), hn::Set(U(), 0xffu));
  return static_cast<int>(hn::GetLane(hn::MaxOfLanes(U(), low)));
}

/// `from` has 16 elements.
HWY_INLINE void pack_row(const Bf16* from, Row& to) {
  const U du;
  const hn::Rebind<uint16_t, U> d16;
  const auto words = [&](int i) HWY_ATTR {
    return hn::PromoteTo(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(from) + i));
  };
  // A subnormal number has the exponent of the smallest normal ones.
  const auto field = [&](VU x) HWY_ATTR {
    return hn::Max(hn::And(hn::ShiftRight<7>(x), hn::Set(du, 0xffu)), hn::Set(du, 1u));
  };
  const auto is_zero = [&](VU x) HWY_ATTR { return hn::Eq(hn::ShiftLeft<17>(x), hn::Zero(du)); };
  VU top = hn::Zero(du);
  HWY_UNROLL(4)
  for (int i = 0; i < kStep; i += kLanes) {
    const VU x = words(i);
    top = hn::Max(top, hn::IfThenZeroElse(is_zero(x), field(x)));
  }
  const VU largest = hn::MaxOfLanes(du, top);
  to.largest = static_cast<int32_t>(hn::GetLane(largest));
  const VF scale =
      hn::BitCast(F(), hn::ShiftLeft<kFieldShift>(hn::Sub(hn::Set(du, 2 * kBias), largest)));
  HWY_UNROLL(4)
  for (int i = 0; i < kStep; i += kLanes) {
    const VU x = words(i);
    const VU deficit =
        hn::IfThenElse(is_zero(x), hn::Set(du, kNoExponent), hn::Sub(largest, field(x)));
    const VU two = hn::Or(deficit, hn::ShiftLeft<8>(deficit));
    hn::StoreU(hn::Or(two, hn::ShiftLeft<16>(two)), du, to.deficits + i);
    const VF value = hn::Mul(hn::BitCast(F(), hn::ShiftLeft<16>(x)), scale);
    const auto counts = hn::Lt(hn::BitCast(I(), deficit), hn::Set(I(), Limits::kDeficit + 1));
    hn::StoreU(hn::IfThenElseZero(hn::RebindMask(F(), counts), value), F(), to.values + i);
  }
}

/// Element (k, j) is from[k * inner + j * column], for k < count and j < columns; the
/// rest counts as zeros.
struct Part {
  const Bf16* from;
  int64_t inner, column;
  int64_t count, columns;
};

/// Rows of 64 elements.
HWY_INLINE void spread_rows(const Bf16* from, int64_t stride, Columns& to) {
  for (int k = 0; k < kStep; ++k) {
    HWY_UNROLL(4)
    for (int j = 0; j < kPanel; j += kLanes)
      hn::Store(load_floats(F(), from + k * stride + j), F(), to.values[k] + j);
  }
}

/// Columns of 16 elements: words of two inner indices are transposed.
HWY_INLINE void spread_columns(const Bf16* from, int64_t stride, Columns& to) {
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const hn::FixedTag<float, 4> df;
  for (int j = 0; j < kPanel; j += 4) {
    HWY_UNROLL(2)
    for (int p = 0; p < kStep; p += 8) {
      const auto load = [&](int c) HWY_ATTR {
        return hn::LoadU(d, reinterpret_cast<const uint32_t*>(from + (j + c) * stride + p));
      };
      const auto r0 = load(0), r1 = load(1), r2 = load(2), r3 = load(3);
      const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
      const auto store = [&](auto pairs, int k) HWY_ATTR {
        const auto words = hn::BitCast(d, pairs);
        const auto odd = hn::And(words, hn::Set(d, 0xffff0000u));
        hn::Store(hn::BitCast(df, hn::ShiftLeft<16>(words)), df, to.values[p + k] + j);
        hn::Store(hn::BitCast(df, odd), df, to.values[p + k + 1] + j);
      };
      store(hn::InterleaveLower(d64, low01, low23), 0);
      store(hn::InterleaveUpper(d64, low01, low23), 2);
      store(hn::InterleaveLower(d64, high01, high23), 4);
      store(hn::InterleaveUpper(d64, high01, high23), 6);
    }
  }
}

/// Whole panels are spread from where they lie, others from a padded copy.
HWY_INLINE void spread(const Part& part, Columns& to) {
  const bool is_whole = part.columns == kPanel && part.count == kStep;
  if (is_whole && part.column == 1) return spread_rows(part.from, part.inner, to);
  if (is_whole && part.inner == 1) return spread_columns(part.from, part.column, to);
  Bf16 copy[kPanel * kStep] = {};
  if (part.inner == 1) {
    for (int64_t j = 0; j < part.columns; ++j)
      std::copy_n(part.from + j * part.column, part.count, copy + j * kStep);
    return spread_columns(copy, kStep, to);
  }
  for (int64_t k = 0; k < part.count; ++k) {
    const Bf16* const from = part.from + k * part.inner;
    if (part.column == 1) {
      std::copy_n(from, part.columns, copy + k * kPanel);
    } else {
      for (int64_t j = 0; j < part.columns; ++j) copy[k * kPanel + j] = from[j * part.column];
    }
  }
  spread_rows(copy, kPanel, to);
}

HWY_NOINLINE inline void pack_columns(const Part& part, Columns& to) {
  spread(part, to);
  // Columns beyond the last one are zeros, but with an exponent that is no reason to
  // leave the vectors.
  alignas(64) uint32_t beyond[kBlock] = {};
  for (int64_t j = part.columns; j < kPanel; ++j)
    beyond[j % kBlock] |= uint32_t{kBias} << j / kBlock * 8;
  const U du;
  VBytes largest = hn::Zero(Bytes());
  for (int w = 0; w < kBlock; w += kLanes) {
    const VU padding = hn::Load(du, beyond + w);
    HWY_UNROLL(4)
    for (int k = 0; k < kStep; ++k) {
      const auto bits = [&](int q) HWY_ATTR {
        return hn::Load(du, reinterpret_cast<const uint32_t*>(to.values[k] + kBlock * q + w));
      };
      const auto mask = [&](uint32_t bytes) HWY_ATTR { return hn::Set(du, bytes); };
      VU words = hn::OrAnd(padding, hn::ShiftRight<23>(bits(0)), mask(0xffu));
      words = hn::OrAnd(words, hn::ShiftRight<15>(bits(1)), mask(0xff00u));
      words = hn::OrAnd(words, hn::ShiftRight<7>(bits(2)), mask(0xff0000u));
      words = hn::OrAnd(words, hn::ShiftLeft<1>(bits(3)), mask(0xff000000u));
      hn::Store(words, du, to.fields[k] + w);
      largest = hn::Max(largest, hn::BitCast(Bytes(), words));
    }
  }
  to.largest = largest_byte(largest);
}

}  // namespace dot16
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
