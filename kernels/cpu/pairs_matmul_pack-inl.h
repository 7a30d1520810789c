// Copies of bf16 operands in the order in which the engines of pairs-inl.h read them.
//
// The left operand of a block of rows goes by row tile: tile after tile, a tile of r
// rows being [block][r][32] elements. The right operand goes in panels of 32 columns,
// [inner / 2][32][2]; 32 inner indices of a panel, 1024 elements, are a square.
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_MATMUL_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_MATMUL_PACK_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_MATMUL_PACK_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_MATMUL_PACK_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "core/dtype.h"
#include "core/tensor.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/matmul.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

using cpu::kPanelWidth;
inline constexpr int64_t kSquare = kPairsBlock * kPanelWidth;
static_assert(kPanelWidth == kPairsBlock);

/// Rows [first, first + count) of a matrix, count <= 32: a block of the inner dimension
/// where that runs along rows.
struct RowBlock {
  int64_t first = 0;
  int64_t count = 0;
};

/// to = from, rounded to nearest, halves away from zero; NaN stays NaN.
HWY_INLINE void round_half_away(const float* HWY_RESTRICT from, int64_t count,
                                Bf16* HWY_RESTRICT to) {
  const hn::Rebind<uint16_t, F> d16;
  auto* const out = reinterpret_cast<uint16_t*>(to);
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const VF value = hn::LoadU(F(), from + i);
    const VU bits = hn::BitCast(U(), value);
    const VU rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Set(U(), 0x8000)));
    const VU quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(U(), 0x40));
    const VU result = hn::IfThenElse(hn::RebindMask(U(), hn::IsNaN(value)), quiet, rounded);
    hn::StoreU(hn::TruncateTo(d16, result), d16, out + i);
  }
  for (int64_t i = whole; i < count; ++i) to[i] = {f32_to_bf16_half_away(from[i])};
}

/// A square of a packed weight: to[pair of p][j][2] from rows j of w, columns p.
inline void pack_square(Mat<const float> w, int64_t row, int64_t col, Bf16* HWY_RESTRICT to) {
  alignas(64) Bf16 rounded[kPanelWidth * kPairsBlock] = {};
  const uint32_t* rows[kPanelWidth];
  const int64_t cols = std::min(w.cols - col, kPairsBlock);
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    Bf16* const out = rounded + j * kPairsBlock;
    if (row + j < w.rows) round_half_away(cpu::row(w, row + j) + col, cols, out);
    rows[j] = reinterpret_cast<const uint32_t*>(out);
  }
  transpose_words(rows, kPanelWidth, kPairs, reinterpret_cast<uint32_t*>(to), kPanelWidth);
}

/// A square the other way: from [pair of p][j][2], to [pair of j][p][2]. Two rows j and
/// two columns p are 64 bits in both, with the two in the middle swapped; the square of
/// 16 by 16 of those is transposed.
inline void swap_square(const Bf16* HWY_RESTRICT from, Bf16* HWY_RESTRICT to) {
  const hn::ScalableTag<uint64_t> d;
  const hn::FixedTag<uint64_t, 2> d2;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  alignas(16) static constexpr uint8_t kMiddle[16] = {0, 1, 4,  5,  2,  3,  6,  7,
                                                      8, 9, 12, 13, 10, 11, 14, 15};
  const auto middle = hn::LoadDup128(d8, kMiddle);
  const auto* const in = reinterpret_cast<const uint64_t*>(from);
  auto* const out = reinterpret_cast<uint64_t*>(to);
  constexpr int kStep = int{hn::MaxLanes(hn::ScalableTag<uint64_t>())};  // rows at a time
  // Two columns of rows r, r + 2, r + 4, ...
  const auto gather = [&](const uint64_t* p) HWY_ATTR {
#if HWY_TARGET == HWY_NEON
    return hn::LoadU(d2, p);
#else
    const hn::FixedTag<uint64_t, 4> d4;
    const auto low = hn::Combine(d4, hn::LoadU(d2, p + 32), hn::LoadU(d2, p));
#if HWY_TARGET == HWY_AVX2
    return low;
#else
    return hn::Combine(d, hn::Combine(d4, hn::LoadU(d2, p + 96), hn::LoadU(d2, p + 64)), low);
#endif
#endif
  };
  const auto swapped = [&](auto v) HWY_ATTR {
    return hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, v), middle));
  };
  for (int r = 0; r < 16; r += kStep) {
    HWY_UNROLL(8)
    for (int q = 0; q < 16; q += 2) {
      const auto even = gather(in + r * 16 + q), odd = gather(in + (r + 1) * 16 + q);
      hn::StoreU(swapped(hn::InterleaveLower(d, even, odd)), d, out + q * 16 + r);
      hn::StoreU(swapped(hn::InterleaveUpper(d, even, odd)), d, out + (q + 1) * 16 + r);
    }
  }
}

/// A square from rows of x: to[pair of rows][j][2], columns from `col` on; zeros past
/// the block's rows and past x's columns.
inline void zip_square(Mat<const Bf16> x, RowBlock block, int64_t col, Bf16* HWY_RESTRICT to) {
  const int64_t cols = std::min(x.cols - col, kPanelWidth);
  for (int64_t r = 0; r < kPairsBlock; r += 2, to += 2 * kPanelWidth) {
    if (r >= block.count || cols < kPanelWidth) std::fill_n(to, 2 * kPanelWidth, Bf16{});
    if (r >= block.count) continue;
    const Bf16* const low = cpu::row(x, block.first + r) + col;
    zip_rows(low, r + 1 < block.count ? low + x.stride : nullptr, cols, to);
  }
}

/// One row of one block of a left operand: `count` <= 32 elements, then zeros.
HWY_INLINE void put_left(const Bf16* from, int64_t count, float* to) {
  if (count == kPairsBlock) return expand(from, kPairsBlock, to);
  expand(from, count, to);
  std::fill(to + count, to + kPairsBlock, 0.0f);
}
HWY_INLINE void put_left(const Bf16* from, int64_t count, Bf16* to) {
  std::copy_n(from, count, to);
  std::fill(to + count, to + kPairsBlock, Bf16{});
}

/// A row tile from rows of `a` [rows, k]; its rows past them, up to `tile_rows`, are
/// zeros.
template <class Left>
void pack_left_rows(Mat<const Bf16> a, int64_t tile_rows, Left* to) {
  const int64_t blocks = (a.cols + kPairsBlock - 1) / kPairsBlock;
  for (int64_t i = 0; i < tile_rows; ++i) {
    for (int64_t block = 0; block < blocks; ++block) {
      Left* const out = to + (block * tile_rows + i) * kPairsBlock;
      const int64_t count = std::min(a.cols - block * kPairsBlock, kPairsBlock);
      if (i < a.rows) {
        put_left(cpu::row(a, i) + block * kPairsBlock, count, out);
      } else {
        std::fill_n(out, kPairsBlock, Left{});
      }
    }
  }
}

/// The columns of `a` as rows: from[j][32 rows of the block] for `cols` <= 32 columns
/// from `col` on.
inline void transpose_columns(Mat<const Bf16> a, RowBlock block, int64_t col, int64_t cols,
                              Bf16* HWY_RESTRICT to) {
  alignas(64) Bf16 zipped[kSquare];
  zip_square({a.data + col, a.rows, cols, a.stride}, block, 0, zipped);
  const uint32_t* rows[kPairs];
  for (int p = 0; p < kPairs; ++p)
    rows[p] = reinterpret_cast<const uint32_t*>(zipped + p * 2 * kPanelWidth);
  transpose_words(rows, kPairs, kPanelWidth, reinterpret_cast<uint32_t*>(to), kPairs);
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
