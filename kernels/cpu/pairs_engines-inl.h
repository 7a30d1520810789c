// Who multiplies bf16 operands for one SIMD target: vectors (pairs-inl.h), AMX's tiles,
// or their emulation. All give the same bits.
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_ENGINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_ENGINES_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_ENGINES_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_ENGINES_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/dtype.h"
#include "kernels/cpu/amx.h"
#include "kernels/cpu/pairs.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs {

#if HWY_TARGET == HWY_AVX3

using cpu::AmxTiles;

/// AmxTiles in memory. REQUIRES of multiply: a FlushScope, which the machine's does not
/// need.
struct EmulatedTiles {
  static void configure() {}
  template <int kTile>
  static void zero() {
    std::memset(tile(kTile), 0, kBytes);
  }
  template <int kTile>
  static void load(const void* from, int64_t stride) {
    for (int r = 0; r < cpu::kAmxRows; ++r) {
      std::memcpy(tile(kTile) + r * cpu::kAmxRowBytes,
                  static_cast<const std::byte*>(from) + r * stride, cpu::kAmxRowBytes);
    }
  }
  template <int kTile>
  static void store(void* to, int64_t stride) {
    for (int r = 0; r < cpu::kAmxRows; ++r) {
      std::memcpy(static_cast<std::byte*>(to) + r * stride, tile(kTile) + r * cpu::kAmxRowBytes,
                  cpu::kAmxRowBytes);
    }
  }
  template <int kC, int kA, int kB>
  static HWY_NOINLINE void multiply() {
    const F d;
    alignas(64) float c[16 * 16];
    alignas(64) Bf16 a[16 * 32], b[16 * 32];
    std::memcpy(c, tile(kC), kBytes);
    std::memcpy(a, tile(kA), kBytes);
    std::memcpy(b, tile(kB), kBytes);
    for (int i = 0; i < 16; ++i) {
      VF even = hn::Zero(d), odd = hn::Zero(d);
      for (int p = 0; p < kPairs; ++p) {
        const VU words = load_words(b + p * 32);
        even = hn::MulAdd(hn::Set(d, to_f32(a[i * 32 + 2 * p])), even_of(words), even);
        odd = hn::MulAdd(hn::Set(d, to_f32(a[i * 32 + 2 * p + 1])), odd_of(words), odd);
      }
      hn::Store(hn::Add(hn::Load(d, c + i * 16), hn::Add(even, odd)), d, c + i * 16);
    }
    std::memcpy(tile(kC), c, kBytes);
  }

 private:
  static constexpr int kBytes = cpu::kAmxRows * cpu::kAmxRowBytes;
  static std::byte* tile(int index) {
    alignas(64) thread_local std::byte tiles[8][kBytes];
    return tiles[index];
  }
};

/// c [16 or 32 rows, 16 or 32 columns] (+)= a b. Strides are in elements.
struct TileProduct {
  float* c = nullptr;
  int64_t c_row = 0;
  bool accumulate = false;
  const Bf16* a = nullptr;
  int64_t a_row = kPairsBlock, a_block = 0;
  const Bf16* b = nullptr;
  /// From a pair of inner indices to the next, from a block, from column 0 to 16.
  int64_t b_row = 0, b_block = 0, b_right = 32;
  int64_t blocks = 0;
};

struct NothingBeside {
  void operator()() const {}
};

/// On tiles, AmxTiles or EmulatedTiles: 32 by 32 elements of c at a time, in four
/// tiles, so that each operand that is loaded is used twice.
template <class Tiles>
struct TileEngine {
  using Left = Bf16;
  static constexpr int kRowStep = 16;
  static constexpr int64_t kSquareWidth = 16;  ///< kernels/cpu/pairs_matmul_pack-inl.h

  static HWY_INLINE Left left(float x) { return to_bf16(x); }

  /// A FlushScope's, for the emulation's sake.
  static HWY_NOINLINE void multiply(const Multiply<Bf16>& op) {
    Tiles::configure();
    TileProduct product;
    product.c_row = op.c_stride, product.accumulate = op.accumulate;
    product.a_block = op.a_block_stride;
    product.b_row = op.b_pair_stride, product.b_block = kPairs * op.b_pair_stride;
    product.blocks = op.blocks;
    for (int64_t row = 0; row < op.rows; row += 32) {
      for (int64_t col = 0; col < op.cols; col += 32) {
        product.c = op.c + row * op.c_stride + col;
        product.a = op.a + row * kPairsBlock;
        product.b = op.b + 2 * col;
        multiply_tile(product, row + 16 < op.rows, col + 16 < op.cols, NothingBeside());
      }
    }
  }

  /// Calls `beside` once a block, for work that the tiles' products hide. REQUIRES:
  /// Tiles::configure(), and a FlushScope for the emulation's sake.
  template <class Beside>
  static HWY_INLINE void multiply_tile(const TileProduct& op, bool two_rows, bool two_cols,
                                       Beside&& beside) {
    if (two_rows && two_cols) {
      tile<true, true>(op, beside);
    } else if (two_rows) {
      tile<true, false>(op, beside);
    } else if (two_cols) {
      tile<false, true>(op, beside);
    } else {
      tile<false, false>(op, beside);
    }
  }

 private:
  /// An operand's tile is loaded for the next block as soon as its last product of this
  /// one is under way: a core that shares its buffers with another thread does not look
  /// ahead far enough by itself (docs/LOG.md, 2026-11-27).
  template <bool kTwoRows, bool kTwoCols, class Beside>
  static HWY_INLINE void tile(const TileProduct& op, Beside&& beside) {
    constexpr int64_t kFloat = sizeof(float), kElement = sizeof(Bf16);
    float *const c = op.c, *const c_below = c + 16 * op.c_row;
    const int64_t c_row = op.c_row * kFloat;
    if (op.accumulate) {
      Tiles::template load<0>(c, c_row);
      if constexpr (kTwoCols) Tiles::template load<1>(c + 16, c_row);
      if constexpr (kTwoRows) Tiles::template load<2>(c_below, c_row);
      if constexpr (kTwoRows && kTwoCols) Tiles::template load<3>(c_below + 16, c_row);
    } else {
      Tiles::template zero<0>();
      if constexpr (kTwoCols) Tiles::template zero<1>();
      if constexpr (kTwoRows) Tiles::template zero<2>();
      if constexpr (kTwoRows && kTwoCols) Tiles::template zero<3>();
    }
    const Bf16 *a = op.a, *a_below = a + 16 * op.a_row, *b = op.b;
    const int64_t a_row = op.a_row * kElement, b_row = op.b_row * kElement;
    const int64_t a_block = op.a_block, b_block = op.b_block, b_right = op.b_right;
    if (op.blocks > 0) {
      Tiles::template load<4>(a, a_row);
      Tiles::template load<6>(b, b_row);
      if constexpr (kTwoCols) Tiles::template load<7>(b + b_right, b_row);
      if constexpr (kTwoRows) Tiles::template load<5>(a_below, a_row);
    }
    for (int64_t left = op.blocks - 1; left > 0; --left) {
      a += a_block, a_below += a_block, b += b_block;
      Tiles::template multiply<0, 4, 6>();
      if constexpr (kTwoCols) Tiles::template multiply<1, 4, 7>();
      Tiles::template load<4>(a, a_row);
      if constexpr (kTwoRows) Tiles::template multiply<2, 5, 6>();
      Tiles::template load<6>(b, b_row);
      if constexpr (kTwoRows && kTwoCols) Tiles::template multiply<3, 5, 7>();
      if constexpr (kTwoCols) Tiles::template load<7>(b + b_right, b_row);
      if constexpr (kTwoRows) Tiles::template load<5>(a_below, a_row);
      beside();
    }
    if (op.blocks > 0) {
      Tiles::template multiply<0, 4, 6>();
      if constexpr (kTwoCols) Tiles::template multiply<1, 4, 7>();
      if constexpr (kTwoRows) Tiles::template multiply<2, 5, 6>();
      if constexpr (kTwoRows && kTwoCols) Tiles::template multiply<3, 5, 7>();
      beside();
    }
    Tiles::template store<0>(c, c_row);
    if constexpr (kTwoCols) Tiles::template store<1>(c + 16, c_row);
    if constexpr (kTwoRows) Tiles::template store<2>(c_below, c_row);
    if constexpr (kTwoRows && kTwoCols) Tiles::template store<3>(c_below + 16, c_row);
  }
};

#endif  // HWY_AVX3

/// Calls f with an engine of the kind that was chosen.
template <class F>
HWY_INLINE void with_engine(F&& f) {
  switch (cpu::pairs_engine()) {
#if HWY_TARGET == HWY_AVX3
    case cpu::PairsEngine::kAmx:
      return f(TileEngine<AmxTiles>());
    case cpu::PairsEngine::kAmxEmulated:
      return f(TileEngine<EmulatedTiles>());
#endif
    default:
      return f(VectorEngine());
  }
}

}  // namespace pairs
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
