// The forward of attention for one SIMD target: a register tile of queries walks over
// tiles of keys. The recurrence over tiles is that of kernels/attention.h. What holds
// throughout, and gives its bits:
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
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_forward.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention-inl.h"

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
HWY_NOINLINE void attend(const AttentionForward& op, const TileBatch& batch, int64_t first_tile,
                         QueryTile& queries, Weights& w) {
  const int64_t head_dim = op.pool.head_dim;
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

void pack_queries(const AttentionForward& op, const KvSegment& segment, int64_t kv_head,
                  QueryTile& queries) {
  const int64_t group = op.q.heads / op.pool.kv_heads;
  const int64_t head_dim = op.pool.head_dim;
  const float* from[kRows];
  int64_t row = queries.first / group;
  int64_t head = queries.first % group;
  for (int i = 0; i < queries.rows; ++i) {
    queries.position[i] = segment.position + row;
    from[i] = op.q.at(segment.row_begin + row, kv_head * group + head);
    if (i + 1 < queries.count && ++head == group) head = 0, ++row;
  }
  transpose_rows(from, queries.rows, head_dim, queries.q, queries.rows);
  reset_sums(queries);
}

void store_outputs(const AttentionForward& op, const KvSegment& segment, int64_t kv_head,
                   QueryTile& queries) {
  const D d;
  const int64_t group = op.q.heads / op.pool.kv_heads;
  const int64_t head_dim = op.pool.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  alignas(64) float lse[kRowsPadded];
  for (int x = 0; x < kRowsPadded; x += kLanes) {
    hn::Store(hn::Add(hn::Load(d, queries.m + x), log_f32(d, hn::Load(d, queries.l + x))), d,
              lse + x);
  }
  int64_t row = segment.row_begin + queries.first / group;
  int64_t head = kv_head * group + queries.first % group;
  for (int i = 0; i < queries.count; ++i) {
    if (op.lse.data != nullptr) op.lse.row(row)[head] = lse[i];
    const V l = hn::Set(d, queries.l[i]);
    const float* from = queries.o + i * ldo;
    float* to = op.out.at(row, head);
    int64_t x = 0;
    for (; x + kLanes <= head_dim; x += kLanes)
      hn::StoreU(hn::Div(hn::LoadU(d, from + x), l), d, to + x);
    if (x < head_dim) {
      store_part(hn::Div(hn::LoadU(d, from + x), l), to + x, head_dim - x);
    }
    if (++head == (kv_head + 1) * group) head -= group, ++row;
  }
}

}  // namespace attention

void forward_item(const AttentionForward& op, const KvSegment& segment, const ForwardItem& item) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.pool.head_dim;
  const int64_t group = op.q.heads / op.pool.kv_heads;
  alignas(64) float q_scratch[kForwardScratch];
  alignas(64) float o_scratch[kForwardScratch];
  Weights w;
  QueryTile query_tiles[kForwardQueries / kRows];
  const int64_t key_tiles = (segment.position + (item.end - 1) / group) / kTile + 1;
  const auto slab = [&](const KvSegment& of, int64_t kv_head, int64_t tile) {
    return (of.blocks[tile] * op.pool.kv_heads + kv_head) * head_dim * kTile;
  };
  // Where the tile lies that comes `tile` tiles after a head's first. It may be another
  // head's, or the next item's.
  const auto ahead = [&](int64_t kv_head, int64_t tile) {
    kv_head += tile / key_tiles;
    if (kv_head < item.kv_head_end) return slab(segment, kv_head, tile % key_tiles);
    if (item.next == nullptr) return slab(segment, item.kv_head_end - 1, key_tiles - 1);
    return slab(*item.next, item.next_kv_head,
                std::min(tile % key_tiles, item.next->position / kTile));
  };
  for (int64_t kv_head = item.kv_head_begin; kv_head < item.kv_head_end; ++kv_head) {
    int count = 0;
    for (int64_t first = item.begin; first < item.end; first += kRows) {
      QueryTile& queries = query_tiles[count];
      queries.first = first;
      queries.count = at_most(item.end - first, kRows);
      queries.rows = tile_rows(queries.count);
      queries.q = q_scratch + count * kRows * head_dim;
      queries.o = o_scratch + count * kRows * padded_head_dim(head_dim);
      pack_queries(op, segment, kv_head, queries);
      ++count;
    }
    for (int64_t tile = 0; tile < key_tiles; tile += kBatchTiles) {
      TileBatch batch;
      batch.tiles = at_most(key_tiles - tile, kBatchTiles);
      for (int t = 0; t < batch.tiles; ++t) {
        // Fetched one batch ahead of the arithmetic: decoding is bound by memory.
        const int64_t here = slab(segment, kv_head, tile + t),
                      next = ahead(kv_head, tile + t + kBatchTiles);
        batch.k[t] = op.pool.k + here;
        batch.v[t] = op.pool.v + here;
        batch.next_k[t] = op.pool.k + next;
        batch.next_v[t] = op.pool.v + next;
      }
      for (int i = 0; i < count; ++i) {
        QueryTile& queries = query_tiles[i];
        if (queries.position[queries.rows - 1] / kTile < tile) continue;
        with_rows(queries.rows,
                  [&](auto rows) { attend<decltype(rows)::value>(op, batch, tile, queries, w); });
      }
    }
    for (int i = 0; i < count; ++i) store_outputs(op, segment, kv_head, query_tiles[i]);
  }
}

/// Packs a run's queries of a kv head into register tiles and returns how many. Query f
/// is head f % group of segment f / group.
int pack_run(const AttentionForward& op, Span<const KvSegment> run, int64_t shared, int64_t kv_head,
             attention::QueryTile* tiles, float* q_scratch, float* o_scratch) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.pool.head_dim;
  const int64_t group = op.q.heads / op.pool.kv_heads;
  const int64_t total = run.size() * group;
  int count = 0;
  for (int64_t first = 0; first < total; first += kRows, ++count) {
    QueryTile& queries = tiles[count];
    queries.count = at_most(total - first, kRows);
    queries.rows = tile_rows(queries.count);
    queries.q = q_scratch + first * head_dim;
    queries.o = o_scratch + first * padded_head_dim(head_dim);
    const float* from[kRows];
    for (int i = 0; i < queries.rows; ++i) {
      const int64_t f = std::min(first + i, total - 1);
      from[i] = op.q.at(run[f / group].row_begin, kv_head * group + f % group);
      queries.position[i] = shared * kTile - 1;
    }
    transpose_rows(from, queries.rows, head_dim, queries.q, queries.rows);
    reset_sums(queries);
  }
  return count;
}

/// Query i of `to` continues from the sums of query `query` of `from`.
void copy_sums(const attention::QueryTile& from, int64_t query, int64_t ldo,
               attention::QueryTile& to, int i) {
  to.m[i] = from.m[query];
  to.l[i] = from.l[query];
  std::copy_n(from.o + query * ldo, ldo, to.o + i * ldo);
}

void forward_shared_prefix(const AttentionForward& op, Span<const KvSegment> run, int64_t shared,
                           int64_t kv_head) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.pool.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  const int group = op.q.heads / op.pool.kv_heads;  // at most kMaxPrefixGroup
  alignas(64) float q_scratch[kForwardScratch];
  alignas(64) float o_scratch[kForwardScratch];
  alignas(64) float own_q[kMaxPrefixGroup * kMaxHeadDim];
  alignas(64) float own_o[kMaxPrefixGroup * kMaxHeadDim];
  Weights w;
  QueryTile together[kForwardQueries / kRows];
  const auto last_tile = [](const KvSegment& segment) { return segment.position / kTile; };
  const auto slab = [&](const KvSegment& segment, int64_t tile) {
    return (segment.blocks[tile] * op.pool.kv_heads + kv_head) * head_dim * kTile;
  };
  // Where the tile lies that comes `tile` - `shared` tiles after the first one that is
  // segment s's own. It may be a later segment's.
  const auto ahead = [&](int64_t s, int64_t tile) {
    for (; s + 1 < run.size() && tile > last_tile(run[s]); ++s)
      tile -= last_tile(run[s]) + 1 - shared;
    return slab(run[s], std::min(tile, last_tile(run[s])));
  };
  // Tiles [tile, end) of segment s, as many as a batch holds.
  const auto batch_of = [&](int64_t s, int64_t tile, int64_t end) {
    TileBatch batch;
    batch.tiles = at_most(end - tile, kBatchTiles);
    for (int t = 0; t < batch.tiles; ++t) {
      const int64_t here = slab(run[s], tile + t), next = ahead(s, tile + t + kBatchTiles);
      batch.k[t] = op.pool.k + here;
      batch.v[t] = op.pool.v + here;
      batch.next_k[t] = op.pool.k + next;
      batch.next_v[t] = op.pool.v + next;
    }
    return batch;
  };

  const int count = pack_run(op, run, shared, kv_head, together, q_scratch, o_scratch);
  for (int64_t tile = 0; tile < shared; tile += kBatchTiles) {
    const TileBatch batch = batch_of(0, tile, shared);
    for (int i = 0; i < count; ++i) {
      with_rows(together[i].rows,
                [&](auto rows) { attend<decltype(rows)::value>(op, batch, tile, together[i], w); });
    }
  }
  QueryTile own;
  own.first = 0;
  own.count = group;
  own.rows = tile_rows(group);
  own.q = own_q;
  own.o = own_o;
  for (int64_t s = 0; s < run.size(); ++s) {
    const KvSegment& segment = run[s];
    pack_queries(op, segment, kv_head, own);
    for (int i = 0; i < own.rows; ++i) {
      const int64_t f = s * group + std::min(i, group - 1);
      copy_sums(together[f / kRows], f % kRows, ldo, own, i);
    }
    const int64_t end = last_tile(segment) + 1;
    for (int64_t tile = shared; tile < end; tile += kBatchTiles) {
      const TileBatch batch = batch_of(s, tile, end);
      with_rows(own.rows,
                [&](auto rows) { attend<decltype(rows)::value>(op, batch, tile, own, w); });
    }
    store_outputs(op, segment, kv_head, own);
  }
}

void write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                   const KvSegment& segment) {
  const int64_t head_dim = pool.head_dim;
  int64_t row = 0;
  while (row < segment.rows) {
    const int64_t position = segment.position + row;
    const int64_t slot = position % kKvBlock;
    const int64_t count = std::min(kKvBlock - slot, segment.rows - row);
    const int64_t block = segment.blocks[position / kKvBlock];
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t slab = (block * pool.kv_heads + head) * head_dim * kKvBlock;
      const float* from[kKvBlock];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t token = segment.row_begin + row + i;
        from[i] = k.at(token, head);
        std::copy_n(v.at(token, head), head_dim, pool.v + slab + (slot + i) * head_dim);
      }
      attention::transpose_rows(from, count, head_dim, pool.k + slab + slot, kKvBlock);
    }
    row += count;
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(write_segment);
HWY_EXPORT(forward_item);
HWY_EXPORT(forward_shared_prefix);

void kv_write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                      const KvSegment& segment) {
  HWY_DYNAMIC_DISPATCH(write_segment)(pool, k, v, segment);
}

void kv_copy_block(const KvPool& pool, int64_t from, int64_t to, int64_t count) {
  const int64_t size = pool.block_elements();
  const int64_t head_dim = pool.head_dim;
  for (int64_t row = 0; row < pool.kv_heads * head_dim; ++row) {
    std::copy_n(pool.k + from * size + row * kKvBlock, count, pool.k + to * size + row * kKvBlock);
  }
  for (int64_t head = 0; head < pool.kv_heads; ++head) {
    const int64_t slab = head * kKvBlock * head_dim;
    std::copy_n(pool.v + from * size + slab, count * head_dim, pool.v + to * size + slab);
  }
}

void attention_forward_item(const AttentionForward& op, const KvSegment& segment,
                            const ForwardItem& item) {
  HWY_DYNAMIC_DISPATCH(forward_item)(op, segment, item);
}

void attention_forward_shared_prefix(const AttentionForward& op, Span<const KvSegment> run,
                                     int64_t shared, int64_t kv_head) {
  HWY_DYNAMIC_DISPATCH(forward_shared_prefix)(op, run, shared, kv_head);
}

}  // namespace orrery::kernels
#endif
