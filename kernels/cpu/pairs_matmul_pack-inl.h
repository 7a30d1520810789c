// Copies of bf16 operands in the order in which the engines of pairs-inl.h read them.
//
// The left operand of a block of rows goes by row tile: tile after tile, a tile of r
// rows being [block][r][32] elements. The right operand goes in panels of 32 columns;
// 32 inner indices of a panel, 1024 elements, are a square. A square is [16][32][2]
// elements for vectors, and for tiles two of [16][16][2], one after the other: a tile
// whose rows lie apart takes longer to load. Functions take the columns that lie
// together, Engine::kSquareWidth, as kWidth.
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

/// A square of a packed weight: [pair of p][j][2] from rows j of w, columns p.
template <int64_t kWidth>
void pack_square(Mat<const float> w, int64_t row, int64_t col, Bf16* HWY_RESTRICT to) {
  alignas(64) Bf16 rounded[kPanelWidth * kPairsBlock] = {};
  const uint32_t* rows[kPanelWidth];
  const int64_t cols = std::min(w.cols - col, kPairsBlock);
  for (int64_t j = 0; j < kPanelWidth; ++j) {
    Bf16* const out = rounded + j * kPairsBlock;
    if (row + j < w.rows) round_half_away(cpu::row(w, row + j) + col, cols, out);
    rows[j] = reinterpret_cast<const uint32_t*>(out);
  }
  auto* const words = reinterpret_cast<uint32_t*>(to);
  for (int64_t j = 0; j < kPanelWidth; j += kWidth)
    transpose_words(rows + j, kWidth, kPairs, words + j * kPairs, kWidth);
}

/// Pieces in which swap_square works.
inline constexpr int kSwapStep = int{hn::MaxLanes(hn::ScalableTag<uint64_t>())};
inline constexpr int kSwapPieces = 16 / kSwapStep * 8;

/// A square the other way: from [pair of p][j][2], to [pair of j][p][2]. Two rows j and
/// two columns p are 64 bits in both, with the two in the middle swapped; the square of
/// 16 by 16 of those is transposed. A piece is kSwapStep rows of two of its columns.
template <int64_t kWidth>
HWY_INLINE void swap_piece(const Bf16* HWY_RESTRICT from, int64_t piece, Bf16* HWY_RESTRICT to) {
  const hn::ScalableTag<uint64_t> d;
  const hn::FixedTag<uint64_t, 2> d2;
  const hn::Repartition<uint8_t, decltype(d)> d8;
  alignas(16) static constexpr uint8_t kMiddle[16] = {0, 1, 4,  5,  2,  3,  6,  7,
                                                      8, 9, 12, 13, 10, 11, 14, 15};
  constexpr int64_t kRow = kWidth / 2;  // of 64 bits
  const auto at = [](int64_t r, int64_t q) { return q / kRow * 16 * kRow + r * kRow + q % kRow; };
  const auto middle = hn::LoadDup128(d8, kMiddle);
  // Two columns of rows r, r + 2, r + 4, ...
  const auto gather = [&](const uint64_t* p) HWY_ATTR {
#if HWY_TARGET == HWY_NEON
    return hn::LoadU(d2, p);
#else
    const hn::FixedTag<uint64_t, 4> d4;
    const auto low = hn::Combine(d4, hn::LoadU(d2, p + 2 * kRow), hn::LoadU(d2, p));
#if HWY_TARGET == HWY_AVX2
    return low;
#else
    return hn::Combine(d, hn::Combine(d4, hn::LoadU(d2, p + 6 * kRow), hn::LoadU(d2, p + 4 * kRow)),
                       low);
#endif
#endif
  };
  const auto swapped = [&](auto v) HWY_ATTR {
    return hn::BitCast(d, hn::TableLookupBytes(hn::BitCast(d8, v), middle));
  };
  const int64_t r = piece / 8 * kSwapStep, q = piece % 8 * 2;
  const auto* const in = reinterpret_cast<const uint64_t*>(from) + at(r, q);
  auto* const out = reinterpret_cast<uint64_t*>(to) + at(q, r);
  const auto even = gather(in), odd = gather(in + kRow);
  hn::StoreU(swapped(hn::InterleaveLower(d, even, odd)), d, out);
  hn::StoreU(swapped(hn::InterleaveUpper(d, even, odd)), d, out + kRow);
}
template <int64_t kWidth>
void swap_square(const Bf16* HWY_RESTRICT from, Bf16* HWY_RESTRICT to) {
  HWY_UNROLL(8)
  for (int64_t piece = 0; piece < kSwapPieces; ++piece) swap_piece<kWidth>(from, piece, to);
}

/// A square from rows of x: [pair of rows][j][2], columns from `col` on; zeros past the
/// block's rows and past x's columns.
template <int64_t kWidth>
void zip_square(Mat<const Bf16> x, RowBlock block, int64_t col, Bf16* HWY_RESTRICT to) {
  const int64_t cols = std::min(x.cols - col, kPanelWidth);
  if (block.count < kPairsBlock || cols < kPanelWidth) std::fill_n(to, kSquare, Bf16{});
  for (int64_t r = 0; r < block.count; r += 2) {
    const Bf16* const low = cpu::row(x, block.first + r) + col;
    const Bf16* const high = r + 1 < block.count ? low + x.stride : nullptr;
    Bf16* const out = to + r * kWidth;
#if HWY_TARGET == HWY_AVX3
    if (high != nullptr && cols == kPanelWidth) {
      zip_whole(low, high, out, out + (kWidth == kPanelWidth ? kPanelWidth : kSquare / 2));
      continue;
    }
#endif
    for (int64_t j = 0; j < cols; j += kWidth) {
      zip_rows(low + j, high == nullptr ? nullptr : high + j, std::min(cols - j, kWidth),
               out + j * kPairsBlock);
    }
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

#if HWY_TARGET == HWY_AVX3

/// Pieces in which transpose_piece works.
inline constexpr int64_t kTransposePieces = 4;

/// Columns [8 piece, 8 piece + 8) of a square of 32 rows, as rows of 32: those of `to`.
HWY_INLINE void transpose_piece(const Bf16* HWY_RESTRICT from, int64_t stride, int64_t piece,
                                Bf16* HWY_RESTRICT to) {
  const hn::FixedTag<uint16_t, 8> d8;
  const hn::FixedTag<uint16_t, 16> d16;
  const hn::FixedTag<uint16_t, 32> d;
  const hn::FixedTag<uint32_t, 16> d32;
  const hn::FixedTag<uint64_t, 8> d64;
  const auto* const in = reinterpret_cast<const uint16_t*>(from) + 8 * piece;
  auto* const out = reinterpret_cast<uint16_t*>(to) + 8 * piece * kPairsBlock;
  // Eight columns of rows r, r + 8, r + 16, r + 24.
  const auto gather = [&](int64_t r) HWY_ATTR {
    const auto part = [&](int64_t row) HWY_ATTR { return hn::LoadU(d8, in + row * stride); };
    return hn::Combine(d, hn::Combine(d16, part(r + 24), part(r + 16)),
                       hn::Combine(d16, part(r + 8), part(r)));
  };
  // Rows in pairs: words of columns 0 to 3, and of 4 to 7.
  hn::Vec<decltype(d32)> low[4], high[4];
  HWY_UNROLL(4)
  for (int k = 0; k < 4; ++k) {
    const auto even = gather(2 * k), odd = gather(2 * k + 1);
    low[k] = hn::BitCast(d32, hn::InterleaveLower(d, even, odd));
    high[k] = hn::BitCast(d32, hn::InterleaveUpper(d, even, odd));
  }
  const auto store = [&](const auto* words, uint16_t* rows) HWY_ATTR {
    const auto a = hn::BitCast(d64, hn::InterleaveLower(d32, words[0], words[1]));
    const auto b = hn::BitCast(d64, hn::InterleaveUpper(d32, words[0], words[1]));
    const auto e = hn::BitCast(d64, hn::InterleaveLower(d32, words[2], words[3]));
    const auto f = hn::BitCast(d64, hn::InterleaveUpper(d32, words[2], words[3]));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, a, e)), d, rows);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, a, e)), d, rows + kPairsBlock);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, b, f)), d, rows + 2 * kPairsBlock);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, b, f)), d, rows + 3 * kPairsBlock);
  };
  store(low, out);
  store(high, out + 4 * kPairsBlock);
}

#endif  // HWY_AVX3

/// The columns of `a` as rows: to[j][32 rows of the block] for `cols` <= 32 columns
/// from `col` on.
inline void transpose_columns(Mat<const Bf16> a, RowBlock block, int64_t col, int64_t cols,
                              Bf16* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_AVX3
  if (block.count == kPairsBlock && cols == kPanelWidth) {
    for (int64_t piece = 0; piece < kTransposePieces; ++piece)
      transpose_piece(cpu::row(a, block.first) + col, a.stride, piece, to);
    return;
  }
#endif
  alignas(64) Bf16 zipped[kSquare];
  zip_square<kPanelWidth>({a.data + col, a.rows, cols, a.stride}, block, 0, zipped);
  const uint32_t* rows[kPairs];
  for (int p = 0; p < kPairs; ++p)
    rows[p] = reinterpret_cast<const uint32_t*>(zipped + p * 2 * kPanelWidth);
  transpose_words(rows, kPairs, kPanelWidth, reinterpret_cast<uint32_t*>(to), kPairs);
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
