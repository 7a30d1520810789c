// Products of bf16 operands for one SIMD target (docs/numerics.md, "Pairs"), and the
// copies that lay operands out for them. An engine multiplies a left operand, blocks of
// rows, by a right one, inner indices in pairs:
//
//   left:   element (i, k) is a[(k / 32) * block_stride + i * 32 + k % 32]
//   right:  element (k, j) is b[(k / 2) * pair_stride + 2 * j + k % 2]
//
// VectorEngine takes the left operand as floats that hold bf16 values, TileEngine as
// Bf16; rows are padded to a multiple of Engine::kRowStep, columns to one of 16, the
// inner dimension to one of 32. Engines need a FlushScope (kernels/cpu/flush.h).
#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "hwy/cache_control.h"
#include "kernels/cpu/pairs.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

using cpu::kPairsBlock;
inline constexpr int kPairs = int{kPairsBlock} / 2;
using F = hn::ScalableTag<float>;
using U = hn::RebindToUnsigned<F>;
using VF = hn::Vec<F>;
using VU = hn::Vec<U>;
inline constexpr int kLanes = int{hn::MaxLanes(F())};

/// A product of a few rows: c [rows, cols] (+)= a b.
template <class Left>
struct Multiply {
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;  ///< start from c; else from 0
  const Left* a = nullptr;
  int64_t a_block_stride = 0;
  const Bf16* b = nullptr;
  int64_t b_pair_stride = 0;
  /// Where vectors have 16 lanes: elements from column 0 to 16, and from the end of a
  /// block to the next.
  int64_t b_right = 32, b_gap = 0;
  int64_t blocks = 0;
  int64_t rows = 0;
  int64_t cols = 0;
  /// Fetch b's memory ahead: it comes from outside the second-level cache, in order.
  bool streams_b = false;
};

/// The words of b hold two inner indices each: the even one in the lower half.
HWY_INLINE VU load_words(const Bf16* b) {
  return hn::LoadU(U(), reinterpret_cast<const uint32_t*>(b));
}
HWY_INLINE VF even_of(VU words) { return hn::BitCast(F(), hn::ShiftLeft<16>(words)); }
HWY_INLINE VF odd_of(VU words) {
  return hn::BitCast(F(), hn::And(words, hn::Set(U(), 0xFFFF0000u)));
}

#if HWY_TARGET == HWY_NEON
/// Arm decides before rounding what is tiny, x86 after. Where anything was tiny, this
/// computes a tile's columns again, by the recipe.
inline void multiply_again(const Multiply<float>& op, const float* start, int64_t start_stride,
                           int64_t row, int64_t rows, int64_t col, int64_t cols) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      float sum = start[i * start_stride + j];
      for (int64_t block = 0; block < op.blocks; ++block) {
        const float* a = op.a + block * op.a_block_stride + (row + i) * kPairsBlock;
        const Bf16* b = op.b + block * kPairs * op.b_pair_stride + 2 * (col + j);
        float even = 0.0f, odd = 0.0f;
        for (int p = 0; p < kPairs; ++p, b += op.b_pair_stride) {
          even = cpu::flushed_fma(a[2 * p], to_f32(b[0]), even);
          odd = cpu::flushed_fma(a[2 * p + 1], to_f32(b[1]), odd);
        }
        sum = cpu::flushed_add(sum, cpu::flushed_add(even, odd));
      }
      op.c[(row + i) * op.c_stride + col + j] = sum;
    }
  }
}

inline void clear_tiny() {
  uint64_t status;
  asm volatile("mrs %0, fpsr" : "=r"(status)::"memory");
  asm volatile("msr fpsr, %0" ::"r"(status & ~uint64_t{8}) : "memory");
}
inline bool was_tiny() {
  uint64_t status;
  asm volatile("mrs %0, fpsr" : "=r"(status)::"memory");
  return (status & 8) != 0;
}
#endif

/// Rows [row, row + kRows), columns [col, col + kVectors * kLanes). Two chains an
/// element in registers, even and odd; c stays in memory, which a block reads and
/// writes once.
template <int kRows, int kVectors>
HWY_NOINLINE void multiply_tile(const Multiply<float>& op, int64_t row, int64_t col) {
  const F d;
  float* const c = op.c + row * op.c_stride + col;
#if HWY_TARGET == HWY_NEON
  float start[kRows * kVectors * kLanes] = {};
  if (op.accumulate) {
    for (int i = 0; i < kRows; ++i)
      std::copy_n(c + i * op.c_stride, kVectors * kLanes, start + i * kVectors * kLanes);
  }
  clear_tiny();
#endif
  const float* HWY_RESTRICT a = op.a + row * kPairsBlock;
  const Bf16* HWY_RESTRICT b = op.b + 2 * col;
  // From a vector of words to the next.
  const int64_t next = kLanes == 16 ? op.b_right : int64_t{2 * kLanes};
  const int64_t gap = kLanes == 16 ? op.b_gap : 0;
  const int64_t ahead = op.streams_b ? 2 * (kPairs * op.b_pair_stride + gap) : 0;
  bool accumulate = op.accumulate;
  for (int64_t block = 0; block < op.blocks; ++block, a += op.a_block_stride) {
    VF even[kRows][kVectors], odd[kRows][kVectors];
    HWY_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) even[i][v] = odd[i][v] = hn::Zero(d);
    }
    HWY_UNROLL(2)
    for (int p = 0; p < kPairs; ++p, b += op.b_pair_stride) {
      if (ahead != 0) {
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; v += 16 / kLanes) hwy::Prefetch(b + ahead + v * next);
      }
      VU words[kVectors];
      VF x[kVectors];
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        words[v] = load_words(b + v * next);
        x[v] = even_of(words[v]);
      }
      HWY_UNROLL(8)
      for (int i = 0; i < kRows; ++i) {
        const VF w = hn::Set(d, a[i * kPairsBlock + 2 * p]);
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) even[i][v] = hn::MulAdd(w, x[v], even[i][v]);
      }
#if HWY_TARGET == HWY_AVX2
      // No register is left to keep the words in: they are read again.
      asm volatile("" ::: "memory");
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) words[v] = load_words(b + v * next);
#endif
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) x[v] = odd_of(words[v]);
      HWY_UNROLL(8)
      for (int i = 0; i < kRows; ++i) {
        const VF w = hn::Set(d, a[i * kPairsBlock + 2 * p + 1]);
        HWY_UNROLL(8)
        for (int v = 0; v < kVectors; ++v) odd[i][v] = hn::MulAdd(w, x[v], odd[i][v]);
      }
    }
    HWY_UNROLL(8)
    for (int i = 0; i < kRows; ++i) {
      HWY_UNROLL(8)
      for (int v = 0; v < kVectors; ++v) {
        float* const to = c + i * op.c_stride + v * kLanes;
        const VF before = accumulate ? hn::LoadU(d, to) : hn::Zero(d);
        hn::StoreU(hn::Add(before, hn::Add(even[i][v], odd[i][v])), d, to);
      }
    }
    accumulate = true;
    b += gap;
  }
#if HWY_TARGET == HWY_NEON
  if (was_tiny()) multiply_again(op, start, kVectors * kLanes, row, kRows, col, kVectors * kLanes);
#endif
}

/// On vectors: the instruction set's fma.
struct VectorEngine {
  using Left = float;
  static constexpr int kRowStep = 1;
  static constexpr int64_t kSquareWidth = 32;  ///< kernels/cpu/pairs_matmul_pack-inl.h
  /// Rows of a register tile: with two chains an element it fills 32 registers, or the
  /// 16 of AVX2.
  static constexpr int kTileRows = HWY_TARGET == HWY_AVX2 ? 3 : 6;

  static HWY_INLINE Left left(float x) { return to_f32(to_bf16(x)); }

  /// A FlushScope's.
  static HWY_NOINLINE void multiply(const Multiply<float>& op) {
    const int64_t tiles = (op.rows + kTileRows - 1) / kTileRows;
    if (op.blocks == 0) return clear(op);
    constexpr int kVectors = 2, kMost = 32 / kLanes;  // of a row tile; of a single row
    int64_t col = 0;
    if (op.rows == 1) {
      for (; col + kMost * kLanes <= op.cols; col += kMost * kLanes)
        multiply_tile<1, kMost>(op, 0, col);
    }
    for (; col + kVectors * kLanes <= op.cols; col += kVectors * kLanes) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t row = op.rows * t / tiles;
        with_rows<kVectors>(op, row, op.rows * (t + 1) / tiles - row, col);
      }
    }
    for (; col < op.cols; col += kLanes) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t row = op.rows * t / tiles;
        with_rows<1>(op, row, op.rows * (t + 1) / tiles - row, col);
      }
    }
  }

 private:
  static void clear(const Multiply<float>& op) {
    if (op.accumulate) return;
    for (int64_t i = 0; i < op.rows; ++i) std::fill_n(op.c + i * op.c_stride, op.cols, 0.0f);
  }
  template <int kVectors>
  static HWY_INLINE void with_rows(const Multiply<float>& op, int64_t row, int64_t rows,
                                   int64_t col) {
    switch (rows) {
      case 1:
        return multiply_tile<1, kVectors>(op, row, col);
      case 2:
        return multiply_tile<2, kVectors>(op, row, col);
      case 3:
        return multiply_tile<3, kVectors>(op, row, col);
      default:
        if constexpr (kTileRows == 6) {
          if (rows == 4) return multiply_tile<4, kVectors>(op, row, col);
          if (rows == 5) return multiply_tile<5, kVectors>(op, row, col);
          return multiply_tile<6, kVectors>(op, row, col);
        }
    }
  }
};

/// to[p * to_stride + i] = from[i][p] for 32-bit words, i < rows, p < count.
HWY_INLINE void transpose_words(const uint32_t* const* from, int64_t rows, int64_t count,
                                uint32_t* HWY_RESTRICT to, int64_t to_stride) {
  const hn::FixedTag<uint32_t, 4> d;
  const hn::FixedTag<uint64_t, 2> d64;
  const int64_t whole_rows = rows / 4 * 4, whole = count / 4 * 4;
  for (int64_t i = 0; i < whole_rows; i += 4) {
    for (int64_t p = 0; p < whole; p += 4) {
      const auto r0 = hn::LoadU(d, from[i] + p), r1 = hn::LoadU(d, from[i + 1] + p);
      const auto r2 = hn::LoadU(d, from[i + 2] + p), r3 = hn::LoadU(d, from[i + 3] + p);
      const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, r2, r3));
      uint32_t* const out = to + p * to_stride + i;
      const auto store = [&](auto v, int64_t k)
                             HWY_ATTR { hn::StoreU(hn::BitCast(d, v), d, out + k * to_stride); };
      store(hn::InterleaveLower(d64, low01, low23), 0);
      store(hn::InterleaveUpper(d64, low01, low23), 1);
      store(hn::InterleaveLower(d64, high01, high23), 2);
      store(hn::InterleaveUpper(d64, high01, high23), 3);
    }
    for (int64_t p = whole; p < count; ++p) {
      for (int64_t k = i; k < i + 4; ++k) to[p * to_stride + k] = from[k][p];
    }
  }
  for (int64_t i = whole_rows; i < rows; ++i) {
    for (int64_t p = 0; p < count; ++p) to[p * to_stride + i] = from[i][p];
  }
}

#if HWY_TARGET == HWY_AVX3
/// 32 elements of two rows as pairs, 16 of them to each of two places.
HWY_INLINE void zip_whole(const Bf16* low, const Bf16* high, Bf16* HWY_RESTRICT first,
                          Bf16* HWY_RESTRICT second) {
  const hn::Rebind<uint16_t, U> d16;
  const auto words = [&](const Bf16* p) HWY_ATTR {
    return hn::PromoteTo(U(), hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  };
  const auto store = [&](const Bf16* l, const Bf16* h, Bf16* to) HWY_ATTR {
    hn::StoreU(hn::Or(words(l), hn::ShiftLeft<16>(words(h))), U(), reinterpret_cast<uint32_t*>(to));
  };
  store(low, high, first);
  store(low + 16, high + 16, second);
}
#endif

/// Two rows as one of pairs: to[2 j] = low[j], to[2 j + 1] = high[j]. A null `high`
/// counts as zeros.
HWY_INLINE void zip_rows(const Bf16* low, const Bf16* high, int64_t count, Bf16* HWY_RESTRICT to) {
  const hn::FixedTag<uint16_t, 8> d;
  const auto* const l = reinterpret_cast<const uint16_t*>(low);
  const auto* const h = reinterpret_cast<const uint16_t*>(high);
  auto* const out = reinterpret_cast<uint16_t*>(to);
  const int64_t whole = count / 8 * 8;
  for (int64_t j = 0; j < whole; j += 8) {
    const auto a = hn::LoadU(d, l + j);
    const auto b = h == nullptr ? hn::Zero(d) : hn::LoadU(d, h + j);
    hn::StoreU(hn::InterleaveLower(d, a, b), d, out + 2 * j);
    hn::StoreU(hn::InterleaveUpper(d, a, b), d, out + 2 * j + 8);
  }
  for (int64_t j = whole; j < count; ++j) {
    to[2 * j] = low[j];
    to[2 * j + 1] = high == nullptr ? Bf16{} : high[j];
  }
}

/// to = from, exactly.
HWY_INLINE void expand(const Bf16* HWY_RESTRICT from, int64_t count, float* HWY_RESTRICT to) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) hn::StoreU(load_floats(F(), from + i), F(), to + i);
  for (int64_t i = whole; i < count; ++i) to[i] = to_f32(from[i]);
}

/// to = from, rounded to nearest even.
HWY_INLINE void round(const float* HWY_RESTRICT from, int64_t count, Bf16* HWY_RESTRICT to) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) store_floats(hn::LoadU(F(), from + i), F(), to + i);
  for (int64_t i = whole; i < count; ++i) to[i] = to_bf16(from[i]);
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
