// The backward of attention for one SIMD target: a block of queries against the key
// tiles of its path. What holds, and gives the bits of kernels/attention.h:
//   1. The path is walked from the root to the block's segment, tiles rising. So a
//      query's dq is a chain over keys by position.
//   2. p and ds are 0 for a key of the tile that a query does not see, and for lanes
//      beyond the tile's keys. No sum that is kept even visits those: fma(0, x, sum)
//      would make NaN of an infinite x, and 0 of a sum of -0.
//   3. dq: the keys that a register tile's first query sees are summed for all its
//      queries at once; then each further query adds the keys that it sees beyond.
//   4. dk and dv: queries that see only some keys of a register tile come first, key by
//      key; then those that see all, for all keys at once. Queries rise with their
//      rows, so for each key this is the order of the queries.
//   5. Within its own segment a query sees the keys up to its row. In an ancestor it
//      sees all keys.
//   6. A register tile of queries that sees nothing of a tile is skipped, and leaves
//      old numbers in p and ds. By 4 nobody reads them.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_backward.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention_backward-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

inline constexpr int kBlock = int{kBackwardQueries};
static_assert(kBlock % kRows == 0);

/// A block of queries, and its weights against the tile at hand. The packed rows are in
/// AttentionScratch.
struct QueryBlock {
  int64_t count = 0;
  int64_t row[kBlock];  ///< within the segment
  alignas(64) float lse[kBlock];
  alignas(64) float delta[kBlock];
  alignas(64) float p[kBlock * kTile];
  alignas(64) float ds[kBlock * kTile];
};

/// Packs queries [begin, end) of a segment: transposed by register tile for the scores,
/// by row for the chains.
void pack_block(const BackwardArgs& op, const AttentionSegment& segment, int64_t kv_head,
                int64_t begin, int64_t end, const AttentionScratch& scratch, QueryBlock& block) {
  const int64_t group = op.q.heads / op.k.heads;
  const int64_t head_dim = op.q.head_dim;
  const int64_t ld = padded_head_dim(head_dim);
  const float* q[kBlock];
  const float* dout[kBlock];
  block.count = end - begin;
  int64_t row = begin / group;
  int64_t head = kv_head * group + begin % group;
  for (int64_t i = 0; i < block.count; ++i) {
    const int64_t token = segment.row_begin + row;
    block.row[i] = row;
    block.lse[i] = cpu::row(op.lse, token)[head];
    block.delta[i] =
        lanes_dot(cpu::at(op.dout, token, head), cpu::at(op.out, token, head), head_dim);
    q[i] = cpu::at(op.q, token, head);
    dout[i] = cpu::at(op.dout, token, head);
    std::copy_n(q[i], head_dim, scratch.q_rows + i * ld);
    std::copy_n(dout[i], head_dim, scratch.dout_rows + i * ld);
    std::fill(scratch.q_rows + i * ld + head_dim, scratch.q_rows + (i + 1) * ld, 0.0f);
    std::fill(scratch.dout_rows + i * ld + head_dim, scratch.dout_rows + (i + 1) * ld, 0.0f);
    if (++head == (kv_head + 1) * group) head -= group, ++row;
  }
  for (int64_t first = 0; first < block.count; first += kRows) {
    const int64_t rows = tile_rows(std::min<int64_t>(kRows, block.count - first));
    // The last register tile is padded with its last query.
    for (int64_t i = block.count; i < first + rows; ++i) {
      q[i] = q[block.count - 1];
      dout[i] = dout[block.count - 1];
    }
    transpose_rows(q + first, rows, head_dim, scratch.q_tiles + first * head_dim, rows);
    transpose_rows(dout + first, rows, head_dim, scratch.dout_tiles + first * head_dim, rows);
  }
}

/// p and ds of register tile [first, first + count) of queries against a tile of keys.
template <int kMr>
HWY_INLINE void weigh_tile(const BackwardArgs& op, const KeyTile& tile, const float* k_tile,
                           const float* v_tile, int64_t first, int64_t count,
                           const AttentionScratch& scratch, QueryBlock& block) {
  const D d;
  const int64_t head_dim = op.q.head_dim;
  float* p = block.p + first * kTile;
  float* ds = block.ds + first * kTile;
  dot_tile<kMr, false>(scratch.q_tiles + first * head_dim, k_tile, head_dim, op.scale, p);
  dot_tile<kMr, false>(scratch.dout_tiles + first * head_dim, v_tile, head_dim, 1.0f, ds);
  const V scale = hn::Set(d, op.scale);
  for (int64_t i = 0; i < count; ++i) {
    const V lse = hn::Set(d, block.lse[first + i]);
    const V delta = hn::Set(d, block.delta[first + i]);
    const int64_t seen = tile.visible(block.row[first + i]);
#pragma GCC unroll 8
    for (int v = 0; v < kTileVecs; ++v) {
      float* to_p = p + i * kTile + v * kLanes;
      float* to_ds = ds + i * kTile + v * kLanes;
      V weight = exp_f32(d, hn::Sub(hn::LoadU(d, to_p), lse));
      V grad = hn::Mul(hn::Mul(weight, hn::Sub(hn::LoadU(d, to_ds), delta)), scale);
      if (seen < kTile) {
        const auto mask = hn::FirstN(d, std::clamp<int64_t>(seen - v * kLanes, 0, kLanes));
        weight = hn::IfThenElseZero(mask, weight);
        grad = hn::IfThenElseZero(mask, grad);
      }
      hn::StoreU(weight, d, to_p);
      hn::StoreU(grad, d, to_ds);
    }
  }
}

/// dq of a register tile of queries: chains over the keys of the tile that each sees.
template <int kMr>
HWY_INLINE void query_gradients(const KeyTile& tile, const float* k_rows, int64_t first,
                                int64_t count, int64_t ld, const AttentionScratch& scratch,
                                const QueryBlock& block) {
  const float* ds = block.ds + first * kTile;
  float* dq = scratch.dq_rows + first * ld;
  const int64_t shared = tile.visible(block.row[first]);
  chain_rows<kMr, false>(ds, k_rows, ld, shared, dq, ld, ld);
  if (!tile.own) return;
  for (int64_t i = 1; i < count; ++i) {
    const int64_t rest = tile.visible(block.row[first + i]) - shared;
    chain_rows<1, false>(ds + i * kTile + shared, k_rows + shared * ld, ld, rest, dq + i * ld, ld,
                         ld);
  }
}

/// dk (weights ds, rows q) or dv (weights p, rows dout) of keys [first, first + count):
/// chains over the block's queries.
template <int kMr>
HWY_INLINE void key_gradients(const KeyTile& tile, const float* weights, const float* rows,
                              int64_t first, int64_t count, int64_t query_begin, int64_t group,
                              int64_t queries, int64_t ld, float* grads) {
  // The first query of the block that sees this key.
  const auto seen_from = [&](int64_t key) {
    return tile.own ? std::clamp<int64_t>((tile.first_row + key) * group - query_begin, 0, queries)
                    : int64_t{0};
  };
  const int64_t shared = seen_from(first + count - 1);
  if (tile.own) {
    for (int64_t i = 0; i + 1 < count; ++i) {
      const int64_t from = seen_from(first + i);
      chain_rows<1, true>(weights + from * kTile + first + i, rows + from * ld, ld, shared - from,
                          grads + (first + i) * ld, ld, ld);
    }
  }
  chain_rows<kMr, true>(weights + shared * kTile + first, rows + shared * ld, ld, queries - shared,
                        grads + first * ld, ld, ld);
}

}  // namespace attention

void backward_pack(const BackwardArgs& op, int64_t segment, int64_t first_tile, int64_t kv_head,
                   const AttentionPack& pack) {
  const AttentionSegment& s = op.segments[segment];
  const int64_t head_dim = op.k.head_dim;
  const int64_t ld = padded_head_dim(head_dim);
  const float* k[kKvBlock];
  const float* v[kKvBlock];
  for (int64_t row = 0; row < s.rows; row += kKvBlock) {
    const int64_t tile = first_tile + row / kKvBlock;
    const int64_t keys = std::min(kKvBlock, s.rows - row);
    float* k_rows = pack.k_rows + tile * kKvBlock * ld;
    // Lanes beyond the segment repeat its last key; nothing reads them.
    for (int64_t j = 0; j < kKvBlock; ++j) {
      k[j] = cpu::at(op.k, s.row_begin + row + std::min(j, keys - 1), kv_head);
      v[j] = cpu::at(op.v, s.row_begin + row + std::min(j, keys - 1), kv_head);
    }
    for (int64_t j = 0; j < keys; ++j) {
      std::copy_n(k[j], head_dim, k_rows + j * ld);
      std::fill(k_rows + j * ld + head_dim, k_rows + (j + 1) * ld, 0.0f);
    }
    attention::transpose_rows(k, kKvBlock, head_dim, pack.k_tiles + tile * head_dim * kKvBlock,
                              kKvBlock);
    attention::transpose_rows(v, kKvBlock, head_dim, pack.v_tiles + tile * head_dim * kKvBlock,
                              kKvBlock);
    std::fill_n(pack.dk + tile * kKvBlock * ld, kKvBlock * ld, 0.0f);
    std::fill_n(pack.dv + tile * kKvBlock * ld, kKvBlock * ld, 0.0f);
  }
}

void backward_block(const BackwardArgs& op, const BackwardBlock& work, const AttentionPack& pack,
                    const AttentionScratch& scratch) {
  using namespace attention;  // NOLINT(google-build-using-namespace)
  const AttentionSegment& segment = op.segments[work.segment];
  const int64_t group = op.q.heads / op.k.heads;
  const int64_t head_dim = op.q.head_dim;
  const int64_t ld = padded_head_dim(head_dim);
  QueryBlock block;
  pack_block(op, segment, work.kv_head, work.begin, work.end, scratch, block);
  if (work.queries) std::fill(scratch.dq_rows, scratch.dq_rows + kBlock * ld, 0.0f);

  int64_t depth = 0;
  for (int64_t s = work.segment; s >= 0; s = op.segments[s].parent) scratch.path[depth++] = s;
  while (depth-- > 0) {
    const int64_t source = scratch.path[depth];
    const int64_t rows = op.segments[source].rows;
    KeyTile tile;
    tile.own = source == work.segment;
    const int64_t last_row = tile.own ? block.row[block.count - 1] : rows - 1;
    for (int64_t t = 0; t * kTile <= last_row; ++t) {
      const int64_t index = work.first_tile[source] + t;
      if (index < work.tile_begin || index >= work.tile_end) continue;
      tile.first_row = t * kTile;
      tile.keys = std::min<int64_t>(kTile, rows - tile.first_row);
      const float* k_rows = pack.k_rows + index * kTile * ld;
      for (int64_t first = 0; first < block.count; first += kRows) {
        const int64_t count = std::min<int64_t>(kRows, block.count - first);
        if (tile.visible(block.row[first + count - 1]) == 0) continue;
        with_rows(tile_rows(count), [&](auto size) {
          constexpr int kMr = decltype(size)::value;
          weigh_tile<kMr>(op, tile, pack.k_tiles + index * kTile * head_dim,
                          pack.v_tiles + index * kTile * head_dim, first, count, scratch, block);
          if (work.queries) query_gradients<kMr>(tile, k_rows, first, count, ld, scratch, block);
        });
      }
      if (!work.keys) continue;
      for (int64_t first = 0; first < tile.keys; first += kRows) {
        const int64_t count = std::min<int64_t>(kRows, tile.keys - first);
        with_rows(tile_rows(count), [&](auto size) {
          constexpr int kMr = decltype(size)::value;
          key_gradients<kMr>(tile, block.ds, scratch.q_rows, first, count, work.begin, group,
                             block.count, ld, pack.dk + index * kTile * ld);
          key_gradients<kMr>(tile, block.p, scratch.dout_rows, first, count, work.begin, group,
                             block.count, ld, pack.dv + index * kTile * ld);
        });
      }
    }
  }
  if (!work.queries) return;
  for (int64_t i = 0; i < block.count; ++i) {
    const int64_t query = work.begin + i;
    float* to =
        cpu::at(op.dq, segment.row_begin + query / group, work.kv_head * group + query % group);
    std::copy(scratch.dq_rows + i * ld, scratch.dq_rows + i * ld + head_dim, to);
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(backward_pack);
HWY_EXPORT(backward_block);

void attention_backward_block(const BackwardArgs& op, const BackwardBlock& work,
                              const AttentionPack& pack, const AttentionScratch& scratch) {
  HWY_DYNAMIC_DISPATCH(backward_block)(op, work, pack, scratch);
}

void attention_backward_pack(const BackwardArgs& op, int64_t segment, int64_t first_tile,
                             int64_t kv_head, const AttentionPack& pack) {
  HWY_DYNAMIC_DISPATCH(backward_pack)(op, segment, first_tile, kv_head, pack);
}

void attention_backward_store(const BackwardArgs& op, int64_t segment, int64_t first_tile,
                              int64_t kv_head, int64_t row_begin, int64_t row_end,
                              const AttentionPack& pack) {
  const AttentionSegment& s = op.segments[segment];
  const int64_t head_dim = op.k.head_dim;
  const int64_t ld = padded_head_dim(head_dim);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t from = (first_tile * kKvBlock + row) * ld;
    std::copy(pack.dk + from, pack.dk + from + head_dim,
              cpu::at(op.dk, s.row_begin + row, kv_head));
    std::copy(pack.dv + from, pack.dv + from + head_dim,
              cpu::at(op.dv, s.row_begin + row, kv_head));
  }
}

}  // namespace orrery::kernels::cpu
#endif
