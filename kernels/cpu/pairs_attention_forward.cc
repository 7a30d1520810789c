// The forward of attention in bf16, for one SIMD target and each engine that it has, a
// work item at a time: packs queries, which meet the tiles of keys in rising order
// (pairs_attention-inl.h, whose rules give the bits), and stores their outputs.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/pairs_attention_forward.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/pairs_attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace pairs_attention {

/// Elements that an item's packed queries, and its outputs, take at most: those of
/// forward_item_queries, at any head_dim, with a step of rows more.
template <class Engine>
constexpr int64_t item_elements() {
  return kForwardScratch + kForwardQueries * 32 + (Engine::kRowStep - 1) * kMaxHeadDim;
}

template <class Engine>
HWY_INLINE void pack_left(const Bf16* from, int64_t count, typename Engine::Left* to) {
  if constexpr (std::is_same_v<typename Engine::Left, float>) {
    pairs::expand(from, count, to);
  } else {
    std::copy_n(from, count, to);
  }
  std::fill(to + count, to + kTile, typename Engine::Left{});
}

/// Begins a block of `count` queries in memory for them and their outputs.
template <class Engine, int64_t kMost>
HWY_INLINE void begin_queries(Queries<Engine, kMost>& queries, int64_t count,
                              typename Engine::Left* q, float* o) {
  queries.count = count;
  queries.rows = rows_of<Engine>(count);
  queries.q = q;
  queries.o = o;
  for (int64_t i = 0; i < queries.kMostPadded; ++i) {
    queries.m[i] = i < count ? -std::numeric_limits<float>::infinity() : 0.0f;
    queries.l[i] = 0.0f;
  }
}

template <class Engine, int64_t kMost>
HWY_INLINE void pack_query(const Bf16* from, int64_t i, int64_t position, int64_t head_dim,
                           Queries<Engine, kMost>& queries) {
  queries.position[i] = position;
  typename Engine::Left* to = queries.q + i * kTile;
  for (int64_t x = 0; x < head_dim; x += kTile, to += queries.rows * kTile)
    pack_left<Engine>(from + x, std::min<int64_t>(kTile, head_dim - x), to);
}

/// Queries [first, first + queries.count) of a segment.
template <class Engine, int64_t kMost>
void pack_queries(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                  int64_t first, Queries<Engine, kMost>& queries) {
  const int64_t group = op.q.heads / op.kv_heads;
  int64_t row = first / group, head = first % group;
  for (int64_t i = 0; i < queries.count; ++i) {
    pack_query(cpu::at(op.q, segment.row_begin + row, kv_head * group + head), i,
               segment.position + row, op.head_dim, queries);
    if (++head == group) head = 0, ++row;
  }
}

/// to = o / l + 0, rounded.
HWY_INLINE void store_output(const float* from, float l, int64_t head_dim, Bf16* to) {
  const D d;
  const V divisor = hn::Set(d, l);
  const auto output = [&](int64_t x) HWY_ATTR {
    return hn::Add(hn::Div(hn::LoadU(d, from + x), divisor), hn::Zero(d));
  };
  int64_t x = 0;
  for (; x + kLanes <= head_dim; x += kLanes) store_floats(output(x), d, to + x);
  if (x == head_dim) return;
  alignas(64) Bf16 last[kLanes];
  store_floats(output(x), d, last);
  std::memcpy(to + x, last, (head_dim - x) * sizeof(Bf16));
}

/// Outputs of queries [first, first + queries.count) of a segment.
template <class Engine, int64_t kMost>
void store_outputs(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                   int64_t first, const Queries<Engine, kMost>& queries) {
  const D d;
  const int64_t group = op.q.heads / op.kv_heads;
  const int64_t columns = value_columns(op.head_dim);
  alignas(64) float lse[Queries<Engine, kMost>::kMostPadded];
  for (int64_t x = 0; op.lse.data != nullptr && x < queries.count; x += kLanes) {
    hn::Store(hn::Add(hn::Load(d, queries.m + x), log_f32(d, hn::Load(d, queries.l + x))), d,
              lse + x);
  }
  int64_t row = segment.row_begin + first / group;
  int64_t head = kv_head * group + first % group;
  for (int64_t i = 0; i < queries.count; ++i) {
    if (op.lse.data != nullptr) cpu::row(op.lse, row)[head] = lse[i];
    store_output(queries.o + i * columns, queries.l[i], op.head_dim, cpu::at(op.out, row, head));
    if (++head == (kv_head + 1) * group) head -= group, ++row;
  }
}

/// Tiles [tile, end) of a kv head, as many as a batch of `count` queries takes. Tile t
/// lies in block(t) of the pool; ahead(t) is where one lies that comes t tiles later.
template <class Block, class Ahead>
HWY_INLINE TileBatch make_batch(const PairsForwardArgs& op, int64_t count, int64_t tile,
                                int64_t end, const Block& block, const Ahead& ahead) {
  const int64_t key_slab = key_elements(DType::kBF16, op.head_dim),
                value_slab = value_elements(DType::kBF16, op.head_dim);
  const int64_t most = std::clamp<int64_t>(kBatchRows / count, 1, kMostTiles);
  TileBatch batch;
  batch.first_tile = tile;
  batch.tiles = attention::at_most(end - tile, static_cast<int>(most));
  for (int t = 0; t < batch.tiles; ++t) {
    // Fetched one batch ahead of the arithmetic: decoding is bound by memory.
    const int64_t here = block(tile + t), next = ahead(tile + t + most);
    batch.k[t] = op.keys + here * key_slab;
    batch.v[t] = op.values + here * value_slab;
    batch.next_k[t] = op.keys + next * key_slab;
    batch.next_v[t] = op.values + next * value_slab;
  }
  return batch;
}

template <class Engine>
void forward_item(const PairsForwardArgs& op, const PlannedSegment& segment,
                  const ForwardItem& item) {
  using Left = typename Engine::Left;
  const int64_t group = op.q.heads / op.kv_heads;
  alignas(64) Left q_scratch[item_elements<Engine>()];
  alignas(64) float o_scratch[item_elements<Engine>()];
  Weights<Left> w;
  Queries<Engine, kForwardQueries> queries;
  const int64_t key_tiles = (segment.position + (item.end - 1) / group) / kTile + 1;
  const auto block = [&](const PlannedSegment& of, int64_t kv_head, int64_t tile) {
    return op.tables[of.table + tile] * op.kv_heads + kv_head;
  };
  for (int64_t kv_head = item.kv_head_begin; kv_head < item.kv_head_end; ++kv_head) {
    const auto here = [&](int64_t tile) { return block(segment, kv_head, tile); };
    // Of a tile beyond this head's last: it may be another head's, or the next item's.
    const auto ahead = [&](int64_t tile) {
      const int64_t head = kv_head + tile / key_tiles;
      if (head < item.kv_head_end) return block(segment, head, tile % key_tiles);
      if (item.next == nullptr) return block(segment, item.kv_head_end - 1, key_tiles - 1);
      return block(*item.next, item.next_kv_head,
                   std::min(tile % key_tiles, item.next->position / kTile));
    };
    begin_queries(queries, item.end - item.begin, q_scratch, o_scratch);
    pack_queries(op, segment, kv_head, item.begin, queries);
    for (int64_t tile = 0; tile < key_tiles;) {
      const TileBatch batch = make_batch(op, queries.count, tile, key_tiles, here, ahead);
      attend(op, batch, queries, w);
      tile += batch.tiles;
    }
    store_outputs(op, segment, kv_head, item.begin, queries);
  }
}

/// Queries of a segment of a run continue from those of the run that begin with
/// `first`.
template <class Engine>
HWY_INLINE void copy_sums(const Queries<Engine, kForwardQueries>& from, int64_t first,
                          int64_t columns, Queries<Engine, kMaxPrefixGroup>& to) {
  std::copy_n(from.m + first, to.count, to.m);
  std::copy_n(from.l + first, to.count, to.l);
  std::copy_n(from.o + first * columns, to.count * columns, to.o);
}

template <class Engine>
void forward_shared_prefix(const PairsForwardArgs& op, Span<const PlannedSegment> run,
                           int64_t shared, int64_t kv_head) {
  using Left = typename Engine::Left;
  constexpr int64_t kOwnElements = rows_of<Engine>(kMaxPrefixGroup) * kMaxHeadDim;
  const int64_t group = op.q.heads / op.kv_heads;  // at most kMaxPrefixGroup
  alignas(64) Left q_scratch[item_elements<Engine>()];
  alignas(64) float o_scratch[item_elements<Engine>()];
  alignas(64) Left own_q[kOwnElements];
  alignas(64) float own_o[kOwnElements];
  Weights<Left> w;
  Queries<Engine, kForwardQueries> together;
  Queries<Engine, kMaxPrefixGroup> own;
  const auto last_tile = [](const PlannedSegment& segment) { return segment.position / kTile; };
  const auto block = [&](const PlannedSegment& segment, int64_t tile) {
    return op.tables[segment.table + tile] * op.kv_heads + kv_head;
  };
  // Of a tile beyond segment s's last: it may be a later segment's.
  const auto ahead_of = [&](int64_t s, int64_t tile) {
    for (; s + 1 < run.size() && tile > last_tile(run[s]); ++s)
      tile -= last_tile(run[s]) + 1 - shared;
    return block(run[s], std::min(tile, last_tile(run[s])));
  };
  const auto walk = [&](int64_t s, int64_t begin, int64_t end, auto& queries) {
    for (int64_t tile = begin; tile < end;) {
      const TileBatch batch = make_batch(
          op, queries.count, tile, end, [&](int64_t t) { return block(run[s], t); },
          [&](int64_t t) { return ahead_of(s, t); });
      attend(op, batch, queries, w);
      tile += batch.tiles;
    }
  };
  begin_queries(together, run.size() * group, q_scratch, o_scratch);
  for (int64_t i = 0; i < together.count; ++i) {
    pack_query(cpu::at(op.q, run[i / group].row_begin, kv_head * group + i % group), i,
               shared * kTile - 1, op.head_dim, together);
  }
  walk(0, 0, shared, together);
  for (int64_t s = 0; s < run.size(); ++s) {
    begin_queries(own, group, own_q, own_o);
    pack_queries(op, run[s], kv_head, 0, own);
    copy_sums(together, s * group, value_columns(op.head_dim), own);
    walk(s, shared, last_tile(run[s]) + 1, own);
    store_outputs(op, run[s], kv_head, 0, own);
  }
}

}  // namespace pairs_attention

void pairs_forward_item(const PairsForwardArgs& op, const PlannedSegment& segment,
                        const ForwardItem& item) {
  pairs::with_engine(
      [&](auto engine) { pairs_attention::forward_item<decltype(engine)>(op, segment, item); });
}

void pairs_forward_shared_prefix(const PairsForwardArgs& op, Span<const PlannedSegment> run,
                                 int64_t shared, int64_t kv_head) {
  pairs::with_engine([&](auto engine) {
    pairs_attention::forward_shared_prefix<decltype(engine)>(op, run, shared, kv_head);
  });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(pairs_forward_item);
HWY_EXPORT(pairs_forward_shared_prefix);

void attention_forward_item(const PairsForwardArgs& op, const PlannedSegment& segment,
                            const ForwardItem& item) {
  HWY_DYNAMIC_DISPATCH(pairs_forward_item)(op, segment, item);
}

void attention_forward_shared_prefix(const PairsForwardArgs& op, Span<const PlannedSegment> run,
                                     int64_t shared, int64_t kv_head) {
  HWY_DYNAMIC_DISPATCH(pairs_forward_shared_prefix)(op, run, shared, kv_head);
}

}  // namespace orrery::kernels::cpu
#endif
