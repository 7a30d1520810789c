// The forward of attention for one SIMD target, a work item at a time: packs queries
// into register tiles, which meet the tiles of keys in rising order
// (attention_queries-inl.h, whose rules give the bits), and stores their outputs.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_forward.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention_queries-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

void pack_queries(const ForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                  QueryTile& queries) {
  const int64_t group = op.q.heads / op.kv_heads;
  const int64_t head_dim = op.head_dim;
  const float* from[kRows];
  int64_t row = queries.first / group;
  int64_t head = queries.first % group;
  for (int i = 0; i < queries.rows; ++i) {
    queries.position[i] = segment.position + row;
    from[i] = cpu::at(op.q, segment.row_begin + row, kv_head * group + head);
    if (i + 1 < queries.count && ++head == group) head = 0, ++row;
  }
  transpose_rows(from, queries.rows, head_dim, queries.q, queries.rows);
  reset_sums(queries);
}

void store_outputs(const ForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                   QueryTile& queries) {
  const D d;
  const int64_t group = op.q.heads / op.kv_heads;
  const int64_t head_dim = op.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  alignas(64) float lse[kRowsPadded];
  for (int x = 0; x < kRowsPadded; x += kLanes) {
    hn::Store(hn::Add(hn::Load(d, queries.m + x), log_f32(d, hn::Load(d, queries.l + x))), d,
              lse + x);
  }
  int64_t row = segment.row_begin + queries.first / group;
  int64_t head = kv_head * group + queries.first % group;
  for (int i = 0; i < queries.count; ++i) {
    if (op.lse.data != nullptr) cpu::row(op.lse, row)[head] = lse[i];
    const V l = hn::Set(d, queries.l[i]);
    const float* from = queries.o + i * ldo;
    float* to = cpu::at(op.out, row, head);
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

void forward_item(const ForwardArgs& op, const PlannedSegment& segment, const ForwardItem& item) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.head_dim;
  const int64_t group = op.q.heads / op.kv_heads;
  alignas(64) float q_scratch[kForwardScratch];
  alignas(64) float o_scratch[kForwardScratch];
  Weights w;
  QueryTile query_tiles[kForwardQueries / kRows];
  const int64_t key_tiles = (segment.position + (item.end - 1) / group) / kTile + 1;
  const auto slab = [&](const PlannedSegment& of, int64_t kv_head, int64_t tile) {
    return (op.tables[of.table + tile] * op.kv_heads + kv_head) * head_dim * kTile;
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
        batch.k[t] = op.keys + here;
        batch.v[t] = op.values + here;
        batch.next_k[t] = op.keys + next;
        batch.next_v[t] = op.values + next;
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
int pack_run(const ForwardArgs& op, Span<const PlannedSegment> run, int64_t shared, int64_t kv_head,
             attention::QueryTile* tiles, float* q_scratch, float* o_scratch) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.head_dim;
  const int64_t group = op.q.heads / op.kv_heads;
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
      from[i] = cpu::at(op.q, run[f / group].row_begin, kv_head * group + f % group);
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

void forward_shared_prefix(const ForwardArgs& op, Span<const PlannedSegment> run, int64_t shared,
                           int64_t kv_head) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const int64_t head_dim = op.head_dim;
  const int64_t ldo = padded_head_dim(head_dim);
  const int group = op.q.heads / op.kv_heads;  // at most kMaxPrefixGroup
  alignas(64) float q_scratch[kForwardScratch];
  alignas(64) float o_scratch[kForwardScratch];
  alignas(64) float own_q[kMaxPrefixGroup * kMaxHeadDim];
  alignas(64) float own_o[kMaxPrefixGroup * kMaxHeadDim];
  Weights w;
  QueryTile together[kForwardQueries / kRows];
  const auto last_tile = [](const PlannedSegment& segment) { return segment.position / kTile; };
  const auto slab = [&](const PlannedSegment& segment, int64_t tile) {
    return (op.tables[segment.table + tile] * op.kv_heads + kv_head) * head_dim * kTile;
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
      batch.k[t] = op.keys + here;
      batch.v[t] = op.values + here;
      batch.next_k[t] = op.keys + next;
      batch.next_v[t] = op.values + next;
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
    const PlannedSegment& segment = run[s];
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

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(forward_item);
HWY_EXPORT(forward_shared_prefix);

void attention_forward_item(const ForwardArgs& op, const PlannedSegment& segment,
                            const ForwardItem& item) {
  HWY_DYNAMIC_DISPATCH(forward_item)(op, segment, item);
}

void attention_forward_shared_prefix(const ForwardArgs& op, Span<const PlannedSegment> run,
                                     int64_t shared, int64_t kv_head) {
  HWY_DYNAMIC_DISPATCH(forward_shared_prefix)(op, run, shared, kv_head);
}

}  // namespace orrery::kernels::cpu
#endif
