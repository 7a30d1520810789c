// A block of queries that walks over tiles of keys in bf16, for one SIMD target and one
// engine of pairs-inl.h: the recurrence over tiles of kernels/attention.h with products
// in pairs (docs/numerics.md, "bf16"). What holds throughout, and gives its bits:
//   1. A query meets its tiles in rising order, each once. After tile t its m, l and o
//      are those of the recurrence after tile t. They belong to the query: moving them
//      to another block changes nothing.
//   2. Tiles come in batches: first their scores, then the weights, then the outputs.
//      Only the order between independent operations differs from tile by tile.
//   3. Scores and outputs are computed under a FlushScope, each batch's in one; scale
//      and softmax outside of it.
//   4. A tile is multiplied for the queries that see some key of it, and for no others.
//      Positions do not fall within a block, so these are its last queries. Keys of the
//      tile that a query does not see have the score -inf, hence p = 0.
//   5. Outputs are multiplied by c only where it is not 1: they are sums under the
//      flush, so times 1 changes no bit. At tile 0 they start from zero.
//   6. Engines multiply whole steps of rows. Rows from the last query on hold whatever
//      their memory held; no other row reads them, and they are never stored.
#include "kernels/cpu/attention-inl.h"
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/pairs_engines-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_ATTENTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_ATTENTION_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_ATTENTION_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_ATTENTION_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/flush.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs_attention {

using attention::D;
using attention::kLanes;
using attention::kTile;
using attention::kTileVecs;
using attention::V;

/// Most tiles of a batch, and most rows times tiles: their scores stay in the
/// first-level cache. With more tiles decoding waits for memory at their end.
inline constexpr int kMostTiles = 4;
inline constexpr int64_t kBatchRows = 4 * kForwardQueries;

template <class Engine>
constexpr int64_t whole_steps(int64_t rows) {
  return (rows + Engine::kRowStep - 1) / Engine::kRowStep * Engine::kRowStep;
}
/// Rows that hold `count` queries, from any of which on an engine multiplies whole
/// steps.
template <class Engine>
constexpr int64_t rows_of(int64_t count) {
  return count + Engine::kRowStep - 1;
}

/// Up to kMostQueries queries and their running state.
template <class Engine, int64_t kMostQueries>
struct Queries {
  using Left = typename Engine::Left;
  static constexpr int64_t kMostPadded = (kMostQueries + 15) / 16 * 16;
  int64_t count = 0;
  int64_t rows = 0;    ///< rows_of(count)
  Left* q = nullptr;   ///< [head_dim / 32, rounded up][rows][32]
  float* o = nullptr;  ///< [rows][value_columns]
  int64_t position[kMostQueries];
  alignas(64) float m[kMostPadded];
  alignas(64) float l[kMostPadded];
};

/// Keys and values of a batch of tiles, and of those to fetch into the cache meanwhile.
struct TileBatch {
  int tiles = 0;
  int64_t first_tile = 0;
  const Bf16* k[kMostTiles];
  const Bf16* v[kMostTiles];
  const Bf16* next_k[kMostTiles];
  const Bf16* next_v[kMostTiles];
};

/// A batch's scores, then weights, and what the online softmax needs to use them.
template <class Left>
struct Weights {
  static constexpr int64_t kRows = kBatchRows + kMostTiles * 15;  // rows_of(each tile)
  static constexpr bool kInPlace = std::is_same_v<Left, float>;
  static constexpr int64_t kPadded = (kForwardQueries + 15) / 16 * 16;
  alignas(64) float s[kRows * kTile];                       ///< [tile][rows][kTile]
  alignas(64) Left p_memory[kInPlace ? 1 : kRows * kTile];  ///< likewise
  int64_t first[kMostTiles];                                ///< first query that sees the tile
  alignas(64) float m[kMostTiles][kPadded];                 ///< running maximum after the tile
  alignas(64) float c[kMostTiles][kPadded];                 ///< exp(m before - m after)
  alignas(64) float sum[kMostTiles][kPadded];               ///< lanes sum of p

  Left* p() {
    if constexpr (kInPlace) {
      return s;
    } else {
      return p_memory;
    }
  }
};

/// How many keys of the tile a query at `position` sees.
HWY_INLINE int64_t visible(int64_t position, int64_t tile) {
  return std::clamp<int64_t>(position + 1 - tile * kTile, 0, kTile);
}

/// Asks for `count` elements, a multiple of 32, in the second-level cache: a Xeon keeps
/// three times as many of its lines under way as of the first-level cache's.
HWY_INLINE void prefetch(const Bf16* from, int64_t count) {
  for (int64_t x = 0; x < count; x += 32) __builtin_prefetch(from + x, 0, 2);
}

/// All of one block's work under the flush: REQUIRES a FlushScope around it.
template <class Engine, int64_t kMost>
HWY_NOINLINE void score_batch(const TileBatch& batch, int64_t head_dim,
                              const Queries<Engine, kMost>& queries,
                              Weights<typename Engine::Left>& w) {
  pairs::Multiply<typename Engine::Left> op;
  op.blocks = key_pairs(head_dim) / 16;
  op.a_block_stride = queries.rows * kTile;
  op.b_pair_stride = 2 * kTile;
  op.cols = op.c_stride = kTile;
  const int64_t size = key_elements(DType::kBF16, head_dim);
  for (int t = 0; t < batch.tiles; ++t) {
    prefetch(batch.next_k[t], size);
    const int64_t first = w.first[t];
    op.rows = whole_steps<Engine>(queries.count - first);
    op.a = queries.q + first * kTile;
    op.b = batch.k[t];
    op.c = w.s + (t * queries.rows + first) * kTile;
    Engine::multiply(op);
  }
}

template <class Engine, int64_t kMost>
HWY_NOINLINE void score_batch_flushed(const TileBatch& batch, int64_t head_dim,
                                      const Queries<Engine, kMost>& queries,
                                      Weights<typename Engine::Left>& w) {
  const cpu::FlushScope flush;
  score_batch<Engine, kMost>(batch, head_dim, queries, w);
}

/// o [count] *= c, under the flush.
HWY_INLINE void rescale(float* HWY_RESTRICT o, int64_t count, float c) {
  const D d;
  const V factor = hn::Set(d, c);
  for (int64_t x = 0; x < count; x += kLanes) {
    const V before = hn::LoadU(d, o + x);
    const V after = hn::Mul(before, factor);
#if HWY_TARGET == HWY_NEON
    // Arm decides before rounding what is tiny: a product that rounds up to the
    // smallest normal number became zero.
    const V smallest = hn::Set(d, std::numeric_limits<float>::min());
    const auto tiny = hn::Le(hn::Abs(after), smallest);
    if (!hn::AllFalse(d, hn::And(tiny, hn::Ne(before, hn::Zero(d))))) {
      for (int64_t i = x; i < x + kLanes; ++i) o[i] = cpu::flushed_mul(o[i], c);
      continue;
    }
#endif
    hn::StoreU(after, d, o + x);
  }
}

template <class Engine, int64_t kMost>
HWY_NOINLINE void output_batch(const TileBatch& batch, int64_t head_dim,
                               Queries<Engine, kMost>& queries, Weights<typename Engine::Left>& w) {
  const int64_t columns = value_columns(head_dim);
  pairs::Multiply<typename Engine::Left> op;
  op.blocks = 1;
  op.b_pair_stride = 2 * columns;
  op.cols = op.c_stride = columns;
  const int64_t size = value_elements(DType::kBF16, head_dim);
  for (int t = 0; t < batch.tiles; ++t) {
    prefetch(batch.next_v[t], size);
    const int64_t first = w.first[t];
    op.accumulate = batch.first_tile + t > 0;
    if (op.accumulate) {
      for (int64_t i = first; i < queries.count; ++i) {
        if (w.c[t][i] != 1.0f) rescale(queries.o + i * columns, columns, w.c[t][i]);
      }
    }
    op.rows = whole_steps<Engine>(queries.count - first);
    op.a = w.p() + (t * queries.rows + first) * kTile;
    op.b = batch.v[t];
    op.c = queries.o + first * columns;
    Engine::multiply(op);
  }
}

template <class Engine, int64_t kMost>
HWY_NOINLINE void output_batch_flushed(const TileBatch& batch, int64_t head_dim,
                                       Queries<Engine, kMost>& queries,
                                       Weights<typename Engine::Left>& w) {
  const cpu::FlushScope flush;
  output_batch<Engine, kMost>(batch, head_dim, queries, w);
}

/// Scales a row of scores, hides the keys from `seen` on, and gives its maximum.
HWY_INLINE float scale_row(float* s, float scale, int64_t seen) {
  const D d;
  const V factor = hn::Set(d, scale);
  V x[kTileVecs];
  HWY_UNROLL(8)
  for (int v = 0; v < kTileVecs; ++v) x[v] = hn::Mul(hn::LoadU(d, s + v * kLanes), factor);
  if (seen < kTile) {
    for (int v = 0; v < kTileVecs; ++v) {
      const auto mask = hn::FirstN(d, std::clamp<int64_t>(seen - v * kLanes, 0, kLanes));
      x[v] = hn::IfThenElse(mask, x[v], hn::Neg(hn::Inf(d)));
    }
  }
  V top = x[0];
  HWY_UNROLL(8)
  for (int v = 0; v < kTileVecs; ++v) {
    if (v > 0) top = hn::Max(top, x[v]);
    hn::StoreU(x[v], d, s + v * kLanes);
  }
  return hn::GetLane(hn::MaxOfLanes(d, top));
}

/// A row's weights, rounded to bf16, from its scores; their lanes sum is of p before it
/// is rounded.
template <class Left>
HWY_INLINE float weigh_row(const float* s, float m, Left* p) {
  const D d;
  const pairs::U u;
  const V top = hn::Set(d, m);
  V e[kTileVecs];
  HWY_UNROLL(8)
  for (int v = 0; v < kTileVecs; ++v) {
    e[v] = exp_f32(d, hn::Sub(hn::LoadU(d, s + v * kLanes), top));
    // A NaN may round to any bits: it is in l, too, hence in the output.
    const pairs::VU bits = hn::BitCast(u, e[v]);
    const pairs::VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(u, 1));
    const pairs::VU rounded = hn::Add(hn::Add(bits, hn::Set(u, 0x7FFF)), odd);
    if constexpr (std::is_same_v<Left, float>) {
      hn::StoreU(hn::BitCast(d, hn::And(rounded, hn::Set(u, 0xFFFF0000u))), d, p + v * kLanes);
    } else {
      const hn::Rebind<uint16_t, D> d16;
      hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(rounded)), d16,
                 reinterpret_cast<uint16_t*>(p) + v * kLanes);
    }
  }
  V lanes[kTileVecs / 2];
  HWY_UNROLL(4)
  for (int v = 0; v < kTileVecs / 2; ++v) lanes[v] = hn::Add(e[v], e[v + kTileVecs / 2]);
  return attention::fold_lanes(d, lanes);
}

/// Online softmax of a batch's scores: w's become weights, and the queries' m and l
/// move on past the tiles.
template <class Engine, int64_t kMost>
HWY_NOINLINE void softmax_batch(const TileBatch& batch, float scale,
                                Queries<Engine, kMost>& queries,
                                Weights<typename Engine::Left>& w) {
  const D d;
  const int64_t padded = (queries.count + kLanes - 1) / kLanes * kLanes;
  for (int t = 0; t < batch.tiles; ++t) {
    const int64_t first = w.first[t];
    // A query that does not see the tile passes it as it is, and padding likewise.
    std::fill_n(w.m[t], first, -std::numeric_limits<float>::infinity());
    std::fill(w.m[t] + queries.count, w.m[t] + padded, 0.0f);
    for (int64_t i = first; i < queries.count; ++i) {
      w.m[t][i] = scale_row(w.s + (t * queries.rows + i) * kTile, scale,
                            visible(queries.position[i], batch.first_tile + t));
    }
  }
  for (int64_t x = 0; x < padded; x += kLanes) {
    V m = hn::Load(d, queries.m + x);
    for (int t = 0; t < batch.tiles; ++t) {
      const V next = hn::Max(m, hn::Load(d, w.m[t] + x));
      const bool start = batch.first_tile + t == 0;
      hn::Store(start ? hn::Zero(d) : exp_f32(d, hn::Sub(m, next)), d, w.c[t] + x);
      hn::Store(next, d, w.m[t] + x);
      m = next;
    }
    hn::Store(m, d, queries.m + x);
  }
  for (int t = 0; t < batch.tiles; ++t) {
    const int64_t first = w.first[t];
    std::fill_n(w.sum[t], first, 0.0f);
    std::fill(w.sum[t] + queries.count, w.sum[t] + padded, 0.0f);
    for (int64_t i = first; i < queries.count; ++i) {
      const int64_t at = (t * queries.rows + i) * kTile;
      w.sum[t][i] = weigh_row(w.s + at, w.m[t][i], w.p() + at);
    }
  }
  for (int64_t x = 0; x < padded; x += kLanes) {
    V l = hn::Load(d, queries.l + x);
    for (int t = 0; t < batch.tiles; ++t)
      l = hn::MulAdd(l, hn::Load(d, w.c[t] + x), hn::Load(d, w.sum[t] + x));
    hn::Store(l, d, queries.l + x);
  }
}

/// Takes the queries past a batch of tiles.
template <class Engine, int64_t kMost>
HWY_INLINE void attend(const PairsForwardArgs& op, const TileBatch& batch,
                       Queries<Engine, kMost>& queries, Weights<typename Engine::Left>& w) {
  int64_t first = 0;
  for (int t = 0; t < batch.tiles; ++t) {
    while (visible(queries.position[first], batch.first_tile + t) == 0) ++first;
    w.first[t] = first;
  }
  score_batch_flushed<Engine, kMost>(batch, op.head_dim, queries, w);
  softmax_batch<Engine, kMost>(batch, op.scale, queries, w);
  output_batch_flushed<Engine, kMost>(batch, op.head_dim, queries, w);
}

}  // namespace pairs_attention
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
