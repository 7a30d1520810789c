#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_forward.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::HWY_NAMESPACE {
namespace attention {

// Tiles whose scores are held at once, so that outputs stay in registers over several tiles.
inline constexpr int kBatchTiles = 4;
// Per-query numbers of a register tile are kept in whole vectors of any width.
inline constexpr int kRowsPadded = 16;

/// A register tile of queries and its running state.
struct QueryTile {
  int rows = 0;       ///< in the register tile; those beyond `count` are padding
  int count = 0;      ///< queries
  int64_t first = 0;  ///< index of its first query
  int64_t position[kRows];
  float* q = nullptr;  ///< [head_dim][rows]
  float* o = nullptr;  ///< [rows][padded head_dim]
  alignas(64) float m[kRowsPadded];
  alignas(64) float l[kRowsPadded];
};

/// Scores of kBatchTiles tiles, then their weights p, and what the online softmax needs to use them.
struct Weights {
  alignas(64) float p[kBatchTiles][kRows * kTile];
  alignas(64) float m[kBatchTiles][kRowsPadded];    ///< running maximum after the tile
  alignas(64) float c[kBatchTiles][kRowsPadded];    ///< exp(m before - m after)
  alignas(64) float sum[kBatchTiles][kRowsPadded];  ///< lanes sum of p
  bool rescale[kBatchTiles];                        ///< some c is not 1
};

/// Keys of the tile that a query at `position` sees.
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
      const auto mask = hn::FirstN(d, static_cast<size_t>(seen));
      hn::StoreU(hn::IfThenElse(mask, hn::LoadU(d, x), hn::Neg(hn::Inf(d))), d, x);
    }
  }
}

/// Online softmax of `tiles` tiles of scores: w.p becomes the weights; m and l move on.
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
    for (int i = kMr; i < kRowsPadded; ++i) w.m[t][i] = 0.0f;
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
    for (int t = 0; t < tiles; ++t) l = hn::MulAdd(l, hn::Load(d, w.c[t] + x), hn::Load(d, w.sum[t] + x));
    hn::Store(l, d, queries.l + x);
  }
}

/// Columns [x, x + kNv vectors) of the outputs over a run of tiles, of which the queries see `keys` keys
/// each. With kPart only the first `part` columns of the one vector exist in v.
template <int kMr, int kNv, bool kPart>
HWY_INLINE void value_block(const Weights& w, int tile_begin, int tile_end, const float* const* v,
                            int64_t head_dim, int64_t keys, bool start, float* o, int64_t ldo, size_t part) {
  const D d;
  V acc[kMr][kNv];
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kNv; ++n) acc[i][n] = start ? hn::Zero(d) : hn::LoadU(d, o + i * ldo + n * kLanes);
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
    const float* HWY_RESTRICT row = v[t];
    for (int64_t j = 0; j < keys; ++j, ++p, row += head_dim) {
      V x[kNv];
#pragma GCC unroll 4
      for (int n = 0; n < kNv; ++n) x[n] = kPart ? load_part(row, part) : hn::LoadU(d, row + n * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < kMr; ++i) {
        const V weight = hn::Set(d, p[i * kTile]);
#pragma GCC unroll 4
        for (int n = 0; n < kNv; ++n) acc[i][n] = hn::MulAdd(weight, x[n], acc[i][n]);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kMr; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < kNv; ++n) hn::StoreU(acc[i][n], d, o + i * ldo + n * kLanes);
  }
}

template <int kMr>
HWY_INLINE void value_tiles(const Weights& w, int tile_begin, int tile_end, const float* const* v,
                            int64_t head_dim, int64_t keys, bool start, float* o, int64_t ldo) {
  const float* column[kBatchTiles];
  int64_t x = 0;
  const auto advance = [&]() {
    for (int t = tile_begin; t < tile_end; ++t) column[t] = v[t] + x;
  };
  for (; x + kVecs * kLanes <= head_dim; x += kVecs * kLanes) {
    advance();
    value_block<kMr, kVecs, false>(w, tile_begin, tile_end, column, head_dim, keys, start, o + x, ldo, 0);
  }
  for (; x + kLanes <= head_dim; x += kLanes) {
    advance();
    value_block<kMr, 1, false>(w, tile_begin, tile_end, column, head_dim, keys, start, o + x, ldo, 0);
  }
  if (x < head_dim) {
    advance();
    value_block<kMr, 1, true>(w, tile_begin, tile_end, column, head_dim, keys, start, o + x, ldo,
                              static_cast<size_t>(head_dim - x));
  }
}

/// Keys [begin, end) of one tile for one query, where its neighbours in the register tile see fewer.
HWY_INLINE void value_rest(const float* p, const float* v, int64_t head_dim, int64_t begin, int64_t end,
                           float* o) {
  const D d;
  for (int64_t j = begin; j < end; ++j) {
    const V weight = hn::Set(d, p[j]);
    const float* row = v + j * head_dim;
    int64_t x = 0;
    for (; x + kLanes <= head_dim; x += kLanes) {
      hn::StoreU(hn::MulAdd(weight, hn::LoadU(d, row + x), hn::LoadU(d, o + x)), d, o + x);
    }
    if (x < head_dim) {
      const size_t part = static_cast<size_t>(head_dim - x);
      hn::StoreU(hn::MulAdd(weight, load_part(row + x, part), hn::LoadU(d, o + x)), d, o + x);
    }
  }
}

/// Tiles [first_tile, first_tile + tiles) for a register tile of queries.
template <int kMr>
HWY_NOINLINE void attend(const AttentionForward& op, const KvSegment& segment, int64_t kv_head,
                         int64_t first_tile, int tiles, QueryTile& queries, Weights& w) {
  const int64_t head_dim = op.pool.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  const float* v[kBatchTiles];
  int whole = 0;  // tiles of which all queries see all keys
  for (int t = 0; t < tiles; ++t) {
    const int64_t tile = first_tile + t;
    const int64_t slab = (segment.blocks[tile] * op.pool.kv_heads + kv_head) * head_dim * kTile;
    v[t] = op.pool.v + slab;
    dot_tile<kMr>(queries.q, op.pool.k + slab, head_dim, op.scale, w.p[t]);
    if (visible(queries.position[0], tile) == kTile) {
      whole = t + 1;
    } else {
      mask_scores(queries, tile, w.p[t]);
    }
  }
  softmax_tiles<kMr>(queries, first_tile, tiles, w);
  if (whole > 0) value_tiles<kMr>(w, 0, whole, v, head_dim, kTile, first_tile == 0, queries.o, ldo);
  for (int t = whole; t < tiles; ++t) {
    const int64_t tile = first_tile + t;
    const int64_t shared = visible(queries.position[0], tile);
    value_tiles<kMr>(w, t, t + 1, v, head_dim, shared, tile == 0, queries.o, ldo);
    for (int i = 1; i < queries.count; ++i) {
      value_rest(w.p[t] + i * kTile, v[t], head_dim, shared, visible(queries.position[i], tile),
                 queries.o + i * ldo);
    }
  }
}

void pack_queries(const AttentionForward& op, const KvSegment& segment, int64_t kv_head, QueryTile& queries) {
  const int64_t group = op.q.heads / op.pool.kv_heads;
  const int64_t head_dim = op.pool.head_dim;
  for (int i = 0; i < queries.rows; ++i) {
    const int64_t query = queries.first + std::min(i, queries.count - 1);
    const int64_t row = query / group;
    queries.position[i] = segment.position + row;
    const float* from = op.q.at(segment.row_begin + row, kv_head * group + query % group);
    for (int64_t x = 0; x < head_dim; ++x) queries.q[x * queries.rows + i] = from[x];
  }
  for (int i = 0; i < kRowsPadded; ++i) {
    queries.m[i] = i < queries.rows ? -std::numeric_limits<float>::infinity() : 0.0f;
    queries.l[i] = 0.0f;
  }
}

void store_outputs(const AttentionForward& op, const KvSegment& segment, int64_t kv_head,
                   QueryTile& queries) {
  const D d;
  const int64_t group = op.q.heads / op.pool.kv_heads;
  const int64_t head_dim = op.pool.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  alignas(64) float lse[kRowsPadded];
  for (int x = 0; x < kRowsPadded; x += kLanes) {
    hn::Store(hn::Add(hn::Load(d, queries.m + x), log_f32(d, hn::Load(d, queries.l + x))), d, lse + x);
  }
  for (int i = 0; i < queries.count; ++i) {
    const int64_t query = queries.first + i;
    const int64_t row = segment.row_begin + query / group;
    const int64_t head = kv_head * group + query % group;
    if (op.lse.data != nullptr) op.lse.row(row)[head] = lse[i];
    const V l = hn::Set(d, queries.l[i]);
    const float* from = queries.o + i * ldo;
    float* to = op.out.at(row, head);
    int64_t x = 0;
    for (; x + kLanes <= head_dim; x += kLanes) hn::StoreU(hn::Div(hn::LoadU(d, from + x), l), d, to + x);
    if (x < head_dim) {
      store_part(hn::Div(hn::LoadU(d, from + x), l), to + x, static_cast<size_t>(head_dim - x));
    }
  }
}

}  // namespace attention

void forward_item(const AttentionForward& op, const KvSegment& segment, int64_t kv_head, int64_t begin,
                  int64_t end) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.pool.head_dim;
  const int64_t group = op.q.heads / op.pool.kv_heads;
  alignas(64) float q_scratch[kForwardScratch];
  alignas(64) float o_scratch[kForwardScratch];
  Weights w;
  QueryTile tiles[48 / kRows + 1];
  int tile_count = 0;
  for (int64_t first = begin; first < end; first += kRows) {
    QueryTile& queries = tiles[tile_count];
    queries.first = first;
    queries.count = static_cast<int>(std::min<int64_t>(kRows, end - first));
    queries.rows = tile_rows(queries.count);
    queries.q = q_scratch + tile_count * kRows * head_dim;
    queries.o = o_scratch + tile_count * kRows * padded_head_dim(head_dim);
    pack_queries(op, segment, kv_head, queries);
    ++tile_count;
  }
  const int64_t key_tiles = (segment.position + (end - 1) / group) / kTile + 1;
  for (int64_t tile = 0; tile < key_tiles; tile += kBatchTiles) {
    for (int i = 0; i < tile_count; ++i) {
      QueryTile& queries = tiles[i];
      const int64_t seen = queries.position[queries.rows - 1] / kTile + 1 - tile;
      if (seen <= 0) continue;
      const int batch = static_cast<int>(std::min<int64_t>(kBatchTiles, seen));
      with_rows(queries.rows, [&](auto rows) {
        attend<decltype(rows)::value>(op, segment, kv_head, tile, batch, queries, w);
      });
    }
  }
  for (int i = 0; i < tile_count; ++i) store_outputs(op, segment, kv_head, tiles[i]);
}

}  // namespace orrery::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery {

HWY_EXPORT(forward_item);

void attention_forward_item(const AttentionForward& op, const KvSegment& segment, int64_t kv_head,
                            int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(forward_item)(op, segment, kv_head, begin, end);
}

}  // namespace orrery
#endif
