// Register tiles of attention for one SIMD target: score tiles (lanes are keys), chains
// over keys or queries (lanes are the head dimension), and the lanes sum. Included by
// attention_queries-inl.h, attention_backward.cc and kv_pool.cc.
#include "kernels/attention.h"
#include "kernels/cpu/simd-inl.h"

#if defined(ORRERY_KERNELS_CPU_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_ATTENTION_INL_H_
#undef ORRERY_KERNELS_CPU_ATTENTION_INL_H_
#else
#define ORRERY_KERNELS_CPU_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <limits>
#include <type_traits>

#include "hwy/cache_control.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
using namespace cpu;  // NOLINT(google-build-using-namespace)
namespace attention {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
inline constexpr int kLanes = int{hn::MaxLanes(D())};
inline constexpr int kTile = int{kKvBlock};
inline constexpr int kTileVecs = kTile / kLanes;
// A register tile: kRows broadcast rows by kVecs vectors of accumulators, which with
// the operands fill the 32 registers of AVX-512 and NEON, or the 16 of AVX2.
inline constexpr int kRows = kLanes == 16 ? 12 : 6;
inline constexpr int kVecs = kLanes == 4 ? 4 : 2;

template <int kCount>
using Int = std::integral_constant<int, kCount>;

/// The smaller of the two, for counts that are cut into parts of `most`.
HWY_INLINE int at_most(int64_t count, int most) {
  return static_cast<int>(std::min<int64_t>(count, most));
}

/// Number of rows of the smallest register tile that holds `rows` (1 .. kRows).
HWY_INLINE int tile_rows(int64_t rows) {
  for (const int size : {1, 2, 3, 4, 6, 8}) {
    if (rows <= size && size <= kRows) return size;
  }
  return kRows;
}

/// Calls f(Int<rows>()) for a value of tile_rows().
template <class F>
HWY_INLINE void with_rows(int rows, F&& f) {
  switch (rows) {
    case 1:
      return f(Int<1>());
    case 2:
      return f(Int<2>());
    case 3:
      return f(Int<3>());
    case 4:
      return f(Int<4>());
    case 6:
      return f(Int<6>());
    default:
      if constexpr (kRows == 12) {
        if (rows == 8) return f(Int<8>());
        return f(Int<12>());
      }
  }
}

/// Asks for the cache lines that hold kCount floats.
template <int kCount>
HWY_INLINE void prefetch_floats(const float* from) {
#pragma GCC unroll 4
  for (int x = 0; x < kCount; x += 16) hwy::Prefetch(from + x);
}

/// s[i * kTile + j] = scale * (chain over d of q[d * kMr + i] * kt[d * kTile + j]), for
/// the tile's 32 keys j. With kAhead it meanwhile fetches the tile `ahead` into the
/// cache.
template <int kMr, bool kAhead>
HWY_INLINE void dot_tile(const float* HWY_RESTRICT q, const float* HWY_RESTRICT kt,
                         int64_t head_dim, float scale, float* HWY_RESTRICT s,
                         const float* ahead = nullptr) {
  const D d;
  for (int j = 0; j < kTile; j += kVecs * kLanes) {
    V acc[kMr][kVecs];
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[i][v] = hn::Zero(d);
    }
    const float* HWY_RESTRICT a = q;
    const float* HWY_RESTRICT b = kt + j;
    for (int64_t c = 0; c < head_dim; ++c, a += kMr, b += kTile) {
      if constexpr (kAhead) prefetch_floats<kVecs * kLanes>(ahead + j + c * kTile);
      V key[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) key[v] = hn::LoadU(d, b + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kMr; ++i) {
        const V x = hn::Set(d, a[i]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) acc[i][v] = hn::MulAdd(x, key[v], acc[i][v]);
      }
    }
    const V factor = hn::Set(d, scale);
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        hn::StoreU(hn::Mul(acc[i][v], factor), d, s + i * kTile + j + v * kLanes);
      }
    }
  }
}

/// One register tile of c[i * ldc + x] += a(t, i) * b[t * ldb + x], a chain over t in
/// [0, n). a(t, i) is a[i * kTile + t], or with kAcross a[t * kTile + i].
template <int kMr, int kNv, bool kAcross>
HWY_INLINE void chain_block(const float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t ldb,
                            int64_t n, float* HWY_RESTRICT c, int64_t ldc) {
  const D d;
  V acc[kMr][kNv];
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) acc[i][v] = hn::LoadU(d, c + i * ldc + v * kLanes);
  }
  for (int64_t t = 0; t < n; ++t, b += ldb, a += kAcross ? kTile : 1) {
    V x[kNv];
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) x[v] = hn::LoadU(d, b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kMr; ++i) {
      const V w = hn::Set(d, a[kAcross ? i : i * kTile]);
#pragma GCC unroll 4
      for (int v = 0; v < kNv; ++v) acc[i][v] = hn::MulAdd(w, x[v], acc[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kNv; ++v) hn::StoreU(acc[i][v], d, c + i * ldc + v * kLanes);
  }
}

/// chain_block over `width` columns, a multiple of kLanes.
template <int kMr, bool kAcross>
HWY_INLINE void chain_rows(const float* a, const float* b, int64_t ldb, int64_t n, float* c,
                           int64_t ldc, int64_t width) {
  if (n <= 0) return;
  int64_t x = 0;
  for (; x + kVecs * kLanes <= width; x += kVecs * kLanes) {
    chain_block<kMr, kVecs, kAcross>(a, b + x, ldb, n, c + x, ldc);
  }
  for (; x < width; x += kLanes) chain_block<kMr, 1, kAcross>(a, b + x, ldb, n, c + x, ldc);
}

/// to[x * ldo + i] = from[i][x] for i < rows, x < width.
HWY_INLINE void transpose_rows(const float* const* from, int64_t rows, int64_t width,
                               float* HWY_RESTRICT to, int64_t ldo) {
  const hn::FixedTag<float, 4> d;
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    int64_t x = 0;
    for (; x + 4 <= width; x += 4) {
      const auto a = hn::LoadU(d, from[i] + x);
      const auto b = hn::LoadU(d, from[i + 1] + x);
      const auto c = hn::LoadU(d, from[i + 2] + x);
      const auto e = hn::LoadU(d, from[i + 3] + x);
      const auto ac_low = hn::InterleaveLower(d, a, c);
      const auto ac_high = hn::InterleaveUpper(d, a, c);
      const auto be_low = hn::InterleaveLower(d, b, e);
      const auto be_high = hn::InterleaveUpper(d, b, e);
      float* out = to + x * ldo + i;
      hn::StoreU(hn::InterleaveLower(d, ac_low, be_low), d, out);
      hn::StoreU(hn::InterleaveUpper(d, ac_low, be_low), d, out + ldo);
      hn::StoreU(hn::InterleaveLower(d, ac_high, be_high), d, out + 2 * ldo);
      hn::StoreU(hn::InterleaveUpper(d, ac_high, be_high), d, out + 3 * ldo);
    }
    for (; x < width; ++x) {
      for (int64_t k = i; k < i + 4; ++k) to[x * ldo + k] = from[k][x];
    }
  }
  for (; i < rows; ++i) {
    for (int64_t x = 0; x < width; ++x) to[x * ldo + i] = from[i][x];
  }
}

/// The first `count` floats at `from`, without reading further (which MaskedLoad on
/// NEON does), and zeros.
HWY_INLINE V load_part(const float* from, int64_t count) {
  const D d;
  if constexpr (kLanes == 4) {
    alignas(64) float x[kLanes] = {};
    std::copy(from, from + count, x);
    return hn::Load(d, x);
  } else {
    return hn::MaskedLoad(hn::FirstN(d, count), d, from);
  }
}

HWY_INLINE void store_part(V v, float* to, int64_t count) {
  const D d;
  if constexpr (kLanes == 4) {
    alignas(64) float x[kLanes];
    hn::Store(v, d, x);
    std::copy(x, x + count, to);
  } else {
    hn::BlendedStore(v, hn::FirstN(d, count), d, to);
  }
}

/// Folds 4 partial sums 2, 1.
template <class V4>
HWY_INLINE float fold_four(V4 v4) {
  const auto v2 = hn::Add(v4, hn::Shuffle1032(v4));
  return hn::GetLane(hn::Add(v2, hn::Shuffle2301(v2)));
}

/// The end of a lanes sum: 16 partial sums, kept in 16 / kLanes vectors, folded 8, 4,
/// 2, 1.
template <class Tag>
HWY_INLINE float fold_lanes(Tag /*d*/, const hn::Vec<Tag>* lanes) {
  if constexpr (kLanes == 16) {
    const hn::Half<Tag> d8;
    const hn::Half<decltype(d8)> d4;
    const auto v8 = hn::Add(hn::LowerHalf(d8, lanes[0]), hn::UpperHalf(d8, lanes[0]));
    return fold_four(hn::Add(hn::LowerHalf(d4, v8), hn::UpperHalf(d4, v8)));
  } else if constexpr (kLanes == 8) {
    const hn::Half<Tag> d4;
    const auto v8 = hn::Add(lanes[0], lanes[1]);
    return fold_four(hn::Add(hn::LowerHalf(d4, v8), hn::UpperHalf(d4, v8)));
  } else {
    return fold_four(hn::Add(hn::Add(lanes[0], lanes[2]), hn::Add(lanes[1], lanes[3])));
  }
}

}  // namespace attention
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
