// Register tiles of queries that walk over tiles of keys, for one SIMD target: the
// recurrence over tiles of kernels/attention.h. Included by attention_forward.cc. What
// holds throughout, and gives its bits:
//   1. A query meets its tiles in rising order, each once. After tile t its m, l and o
//      are those of the recurrence after tile t. They belong to the query: moving them
//      to another register tile (forward_shared_prefix) changes nothing.
//   2. Tiles come in batches of up to kBatchTiles. The scores and weights of a batch
//      are computed before its outputs, which then stay in registers over the batch.
//      Only the order between independent operations differs from tile by tile: m after
//      tile t depends on tiles up to t alone, and o takes c, then the keys, tile after
//      tile.
//   3. Outputs are multiplied by c only where some c is not 1: times 1 changes no bit.
//      At tile 0 they start from zero instead, as c is 0 there.
//   4. A key that a query does not see has the score -inf, hence p = 0, which leaves
//      the lanes sum as it is. Its v is never read, for it may be memory that nobody
//      wrote: a register tile's outputs go as far as its first query sees
//      (value_tiles), and each further query adds the keys that it sees beyond
//      (value_rest).
//   5. Positions do not fall within a register tile, so its first query sees the fewest
//      keys and its last one the most.
//   6. Rows of a register tile from `count` on repeat the last query. They are computed
//      and never stored.
#include "kernels/cpu/attention-inl.h"

#if defined(ORRERY_KERNELS_CPU_ATTENTION_QUERIES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_ATTENTION_QUERIES_INL_H_
#undef ORRERY_KERNELS_CPU_ATTENTION_QUERIES_INL_H_
#else
#define ORRERY_KERNELS_CPU_ATTENTION_QUERIES_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "kernels/cpu/attention.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

// Tiles whose scores are held at once, so that outputs stay in registers over several
// tiles.
inline constexpr int kBatchTiles = 4;
// Per-query numbers of a register tile are padded to whole vectors of any width.
inline constexpr int kRowsPadded = 16;

/// A register tile of queries and its running state.
struct QueryTile {
  int rows = 0;       ///< rows of the register tile; those from `count` on are padding
  int count = 0;      ///< queries
  int64_t first = 0;  ///< index of the first query
  int64_t position[kRows];
  float* q = nullptr;  ///< [head_dim][rows]
  float* o = nullptr;  ///< [rows][padded head_dim]
  alignas(64) float m[kRowsPadded];
  alignas(64) float l[kRowsPadded];
};

/// A batch of tiles: first scores, then their weights p, and what the online softmax
/// needs to use them.
struct Weights {
  alignas(64) float p[kBatchTiles][kRows * kTile];
  alignas(64) float m[kBatchTiles][kRowsPadded];    ///< running maximum after the tile
  alignas(64) float c[kBatchTiles][kRowsPadded];    ///< exp(m before - m after)
  alignas(64) float sum[kBatchTiles][kRowsPadded];  ///< lanes sum of p
  bool rescale[kBatchTiles];                        ///< some c is not 1
};

/// How many keys of the tile a query at `position` sees.
HWY_INLINE int64_t visible(int64_t position, int64_t tile) {
  return std::clamp<int64_t>(position + 1 - tile * kTile, 0, kTile);
}

/// Hides keys that a query does not see: exp makes their p 0.
HWY_INLINE void mask_scores(const QueryTile& queries, int64_t tile, float* s) {
  const D d;
  for (int i = 0; i < queries.rows; ++i) {
    const int64_t count = visible(queries.position[i], tile);
    for (int v = 0; v < kTileVecs; ++v) {
      const int64_t seen = std::clamp<int64_t>(count - v * kLanes, 0, kLanes);
      float* x = s + i * kTile + v * kLanes;
      const auto mask = hn::FirstN(d, seen);
      hn::StoreU(hn::IfThenElse(mask, hn::LoadU(d, x), hn::Neg(hn::Inf(d))), d, x);
    }
  }
}

/// Online softmax of `tiles` tiles of scores: w.p becomes the weights, and the queries'
/// m and l move on past these tiles.
template <int kMr>
HWY_INLINE void softmax_tiles(QueryTile& queries, int64_t first_tile, int tiles, Weights& w) {
  const D d;
  for (int t = 0; t < tiles; ++t) {
    for (int i = 0; i < kMr; ++i) {
      const float* s = w.p[t] + i * kTile;
      V top = hn::LoadU(d, s);
      for (int v = 1; v < kTileVecs; ++v) top = hn::Max(top, hn::LoadU(d, s + v * kLanes));
      w.m[t][i] = hn::GetLane(hn::MaxOfLanes(d, top));
    }
    for (int i = kMr; i < kRowsPadded; ++i) w.m[t][i] = w.sum[t][i] = 0.0f;
  }
  constexpr int kStateVecs = (kMr + kLanes - 1) / kLanes;
  for (int t = 0; t < tiles; ++t) w.rescale[t] = false;
  for (int x = 0; x < kStateVecs * kLanes; x += kLanes) {
    V m = hn::Load(d, queries.m + x);
    for (int t = 0; t < tiles; ++t) {
      const V next = hn::Max(m, hn::Load(d, w.m[t] + x));
      const bool start = first_tile + t == 0;
      const V c = start ? hn::Zero(d) : exp_f32(d, hn::Sub(m, next));
      hn::Store(c, d, w.c[t] + x);
      hn::Store(next, d, w.m[t] + x);
      w.rescale[t] |= !start && !hn::AllTrue(d, hn::Eq(c, hn::Set(d, 1.0f)));
      m = next;
    }
    hn::Store(m, d, queries.m + x);
  }
  for (int t = 0; t < tiles; ++t) {
    for (int i = 0; i < kMr; ++i) {
      float* p = w.p[t] + i * kTile;
      const V m = hn::Set(d, w.m[t][i]);
      V e[kTileVecs];
#pragma GCC unroll 8
      for (int v = 0; v < kTileVecs; ++v) {
        e[v] = exp_f32(d, hn::Sub(hn::LoadU(d, p + v * kLanes), m));
        hn::StoreU(e[v], d, p + v * kLanes);
      }
      V lanes[kTileVecs / 2];
#pragma GCC unroll 4
      for (int v = 0; v < kTileVecs / 2; ++v) lanes[v] = hn::Add(e[v], e[v + kTileVecs / 2]);
      w.sum[t][i] = fold_lanes(d, lanes);
    }
  }
  for (int x = 0; x < kStateVecs * kLanes; x += kLanes) {
    V l = hn::Load(d, queries.l + x);
    for (int t = 0; t < tiles; ++t)
      l = hn::MulAdd(l, hn::Load(d, w.c[t] + x), hn::Load(d, w.sum[t] + x));
    hn::Store(l, d, queries.l + x);
  }
}

/// Keys and values of a batch of tiles, and of the tiles to fetch into the cache
/// meanwhile.
struct TileBatch {
  int tiles = 0;
  const float* k[kBatchTiles];
  const float* v[kBatchTiles];
  const float* next_k[kBatchTiles];
  const float* next_v[kBatchTiles];
};

/// Columns [x, x + kNv vectors) of the outputs over tiles [tile_begin, tile_end), of
/// each of which all queries see the first `keys` keys. `start`: the outputs start from
/// zero. With kPart the one vector reaches beyond head_dim.
template <int kMr, int kNv, bool kPart>
HWY_INLINE void value_block(const Weights& w, const TileBatch& batch, int tile_begin, int tile_end,
                            int64_t x, int64_t head_dim, int64_t keys, bool start, float* o,
                            int64_t ldo) {
  const D d;
  V acc[kMr][kNv];
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kNv; ++n)
      acc[i][n] = start ? hn::Zero(d) : hn::LoadU(d, o + i * ldo + x + n * kLanes);
  }
  for (int t = tile_begin; t < tile_end; ++t) {
    if (w.rescale[t]) {
#pragma GCC unroll 16
      for (int i = 0; i < kMr; ++i) {
        const V c = hn::Set(d, w.c[t][i]);
#pragma GCC unroll 4
        for (int n = 0; n < kNv; ++n) acc[i][n] = hn::Mul(acc[i][n], c);
      }
    }
    const float* HWY_RESTRICT p = w.p[t];
    const float* HWY_RESTRICT row = batch.v[t] + x;
    const float* next = batch.next_v[t] + x;
    for (int64_t j = 0; j < keys; ++j, ++p, row += head_dim, next += head_dim) {
      prefetch_floats<kNv * kLanes>(next);
      V value[kNv];
#pragma GCC unroll 4
      for (int n = 0; n < kNv; ++n)
        value[n] = kPart ? load_part(row, head_dim - x) : hn::LoadU(d, row + n * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kMr; ++i) {
        const V weight = hn::Set(d, p[i * kTile]);
#pragma GCC unroll 4
        for (int n = 0; n < kNv; ++n) acc[i][n] = hn::MulAdd(weight, value[n], acc[i][n]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kNv; ++n) hn::StoreU(acc[i][n], d, o + i * ldo + x + n * kLanes);
  }
}

template <int kMr>
HWY_INLINE void value_tiles(const Weights& w, const TileBatch& batch, int tile_begin, int tile_end,
                            int64_t head_dim, int64_t keys, bool start, float* o, int64_t ldo) {
  int64_t x = 0;
  for (; x + kVecs * kLanes <= head_dim; x += kVecs * kLanes) {
    value_block<kMr, kVecs, false>(w, batch, tile_begin, tile_end, x, head_dim, keys, start, o,
                                   ldo);
  }
  for (; x + kLanes <= head_dim; x += kLanes) {
    value_block<kMr, 1, false>(w, batch, tile_begin, tile_end, x, head_dim, keys, start, o, ldo);
  }
  if (x < head_dim)
    value_block<kMr, 1, true>(w, batch, tile_begin, tile_end, x, head_dim, keys, start, o, ldo);
}

/// Keys [begin, end) of one tile for one query, where the first query of its register
/// tile sees none of them.
HWY_INLINE void value_rest(const float* p, const float* v, int64_t head_dim, int64_t begin,
                           int64_t end, float* o) {
  const D d;
  for (int64_t j = begin; j < end; ++j) {
    const V weight = hn::Set(d, p[j]);
    const float* row = v + j * head_dim;
    int64_t x = 0;
    for (; x + kLanes <= head_dim; x += kLanes) {
      hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, row + x), hn::LoadU(d, o + x)), d, o + x);
    }
    if (x < head_dim) {
      const int64_t part = head_dim - x;
      hn::StoreU(hn::MulAdd(weight, load_part(row + x, part), hn::LoadU(d, o + x)), d, o + x);
    }
  }
}

/// Takes a register tile of queries past the batch of tiles that begins with
/// `first_tile`.
template <int kMr>
HWY_NOINLINE void attend(const ForwardArgs& op, const TileBatch& batch, int64_t first_tile,
                         QueryTile& queries, Weights& w) {
  const int64_t head_dim = op.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  int whole = 0;  // leading tiles of which all queries see all keys
  const int tiles =
      at_most(queries.position[queries.rows - 1] / kTile + 1 - first_tile, batch.tiles);
  for (int t = 0; t < tiles; ++t) {
    dot_tile<kMr, true>(queries.q, batch.k[t], head_dim, op.scale, w.p[t], batch.next_k[t]);
    if (visible(queries.position[0], first_tile + t) == kTile) {
      whole = t + 1;
    } else {
      mask_scores(queries, first_tile + t, w.p[t]);
    }
  }
  softmax_tiles<kMr>(queries, first_tile, tiles, w);
  if (whole > 0)
    value_tiles<kMr>(w, batch, 0, whole, head_dim, kTile, first_tile == 0, queries.o, ldo);
  for (int t = whole; t < tiles; ++t) {
    const int64_t tile = first_tile + t;
    const int64_t shared = visible(queries.position[0], tile);
    value_tiles<kMr>(w, batch, t, t + 1, head_dim, shared, tile == 0, queries.o, ldo);
    for (int i = 1; i < queries.count; ++i) {
      value_rest(w.p[t] + i * kTile, batch.v[t], head_dim, shared,
                 visible(queries.position[i], tile), queries.o + i * ldo);
    }
  }
}

HWY_INLINE void reset_sums(QueryTile& queries) {
  for (int i = 0; i < kRowsPadded; ++i) {
    queries.m[i] = i < queries.rows ? -std::numeric_limits<float>::infinity() : 0.0f;
    queries.l[i] = 0.0f;
  }
}

}  // namespace attention
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
