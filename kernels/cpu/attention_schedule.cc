// How attention's backward is spread over threads. Either a (tree, kv head) is walked whole by one thread,
// query block by query block, which computes each score once; or, where there are too few of those for the
// threads, dk/dv by groups of key tiles and dq by query blocks, which computes the scores twice. Every sum
// has the same order in both.
#include <algorithm>
#include <atomic>

#include "core/parallel.h"
#include "kernels/cpu/attention.h"

namespace orrery {
namespace {

constexpr int64_t kGroupTiles = 4;  // key tiles of one dk/dv item

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Trees {
  int64_t count = 0;
  int64_t depth = 0;      ///< most segments on a path
  int64_t max_tiles = 0;  ///< of one tree
  int64_t tiles = 0;      ///< of all
  int32_t* of_segment = nullptr;
  int64_t* first_tile = nullptr;  ///< [segment], within its tree
  int32_t* segments = nullptr;    ///< by tree, in list order
  int64_t* begin = nullptr;       ///< [count + 1], into segments
  int64_t* tile_begin = nullptr;  ///< [count + 1], over all trees
  double* cost = nullptr;         ///< [count], pairs of query and key
};

Trees make_trees(std::span<const AttentionSegment> segments, Arena& arena) {
  const int64_t n = static_cast<int64_t>(segments.size());
  Trees trees;
  trees.of_segment = arena.alloc<int32_t>(n);
  trees.first_tile = arena.alloc<int64_t>(n);
  trees.segments = arena.alloc<int32_t>(n);
  trees.begin = arena.alloc<int64_t>(n + 2);
  trees.tile_begin = arena.alloc<int64_t>(n + 1);
  trees.cost = arena.alloc<double>(n + 1);
  int32_t* depth = arena.alloc<int32_t>(n);
  int64_t* tiles = arena.alloc<int64_t>(n);
  std::fill(trees.begin, trees.begin + n + 2, 0);
  for (int64_t i = 0; i < n; ++i) {
    const AttentionSegment& s = segments[i];
    const bool root = s.parent < 0;
    const int32_t tree = root ? static_cast<int32_t>(trees.count++) : trees.of_segment[s.parent];
    if (root) tiles[tree] = 0, trees.cost[tree] = 0;
    trees.of_segment[i] = tree;
    depth[i] = root ? 1 : depth[s.parent] + 1;
    trees.depth = std::max<int64_t>(trees.depth, depth[i]);
    trees.first_tile[i] = tiles[tree];
    tiles[tree] += ceil_div(s.rows, kKvBlock);
    trees.cost[tree] += static_cast<double>(s.rows) * (static_cast<double>(s.position) + 0.5 * s.rows + 0.5);
    ++trees.begin[tree + 2];
  }
  trees.tile_begin[0] = 0;
  for (int64_t t = 0; t < trees.count; ++t) {
    trees.begin[t + 2] += trees.begin[t + 1];
    trees.tile_begin[t + 1] = trees.tile_begin[t] + tiles[t];
    trees.max_tiles = std::max(trees.max_tiles, tiles[t]);
  }
  trees.tiles = trees.tile_begin[trees.count];
  for (int64_t i = 0; i < n; ++i)
    trees.segments[trees.begin[trees.of_segment[i] + 1]++] = static_cast<int32_t>(i);
  return trees;
}

AttentionPack make_pack(const AttentionBackward& op, int64_t tiles, Arena& arena) {
  const int64_t packed = tiles * kKvBlock * op.k.head_dim;
  const int64_t padded = tiles * kKvBlock * padded_head_dim(op.k.head_dim);
  AttentionPack pack;
  pack.k_tiles = arena.alloc<float>(packed);
  pack.v_tiles = arena.alloc<float>(packed);
  pack.k_rows = arena.alloc<float>(padded);
  pack.dk = arena.alloc<float>(padded);
  pack.dv = arena.alloc<float>(padded);
  return pack;
}

AttentionScratch make_scratch(const AttentionBackward& op, int64_t depth, Arena& arena) {
  const int64_t packed = kBackwardQueries * op.k.head_dim;
  const int64_t padded = kBackwardQueries * padded_head_dim(op.k.head_dim);
  AttentionScratch scratch;
  scratch.q_tiles = arena.alloc<float>(packed);
  scratch.dout_tiles = arena.alloc<float>(packed);
  scratch.q_rows = arena.alloc<float>(padded);
  scratch.dout_rows = arena.alloc<float>(padded);
  scratch.dq_rows = arena.alloc<float>(padded);
  scratch.path = arena.alloc<int32_t>(depth);
  return scratch;
}

/// Whether walking each (tree, kv head) whole is expected to be faster: 5 matrix products, but only as
/// parallel as the trees are, against 7 that spread evenly.
bool walk_whole(const Trees& trees, int64_t kv_heads, int64_t threads, Arena& arena) {
  if (threads <= 1) return true;
  double* load = arena.alloc<double>(threads);
  std::fill(load, load + threads, 0.0);
  double total = 0;
  for (int64_t unit = 0; unit < trees.count * kv_heads; ++unit) {
    const double cost = trees.cost[unit / kv_heads];
    *std::min_element(load, load + threads) += cost;
    total += cost;
  }
  return 5 * *std::max_element(load, load + threads) <= 7 * total / static_cast<double>(threads);
}

/// body(slot, item) for all items, each slot being one thread's own.
template <class Body>
void slot_items(const Context& ctx, int64_t slots, int64_t items, Body&& body) {
  std::atomic<int64_t> next = 0;
  parallel_items(ctx, slots, [&](int64_t slot) {
    for (int64_t item = next++; item < items; item = next++) body(slot, item);
  });
}

bool descends(std::span<const AttentionSegment> segments, int64_t segment, int64_t ancestor) {
  int64_t s = segment;
  while (s > ancestor) s = segments[s].parent;
  return s == ancestor;
}

}  // namespace

void attention_backward_cpu(const Context& ctx, const AttentionBackward& op, Arena& arena) {
  ArenaScope scope(arena);
  const int64_t kv_heads = op.k.heads;
  const int64_t group = op.q.heads / kv_heads;
  const int64_t threads = std::max(ctx.threads, 1);
  const Trees trees = make_trees(op.segments, arena);
  const bool whole = walk_whole(trees, kv_heads, threads, arena);
  const int64_t units = trees.count * kv_heads;
  const int64_t slots = whole ? std::min(threads, units) : threads;
  auto scratch = arena.span<AttentionScratch>(slots);
  for (auto& s : scratch) s = make_scratch(op, trees.depth, arena);

  BackwardBlock all;
  all.first_tile = trees.first_tile;
  // Calls body(block) for the blocks of a segment's queries, from the one that holds `row` on.
  const auto for_blocks = [&](BackwardBlock block, int64_t segment, int64_t row, auto&& body) {
    const int64_t queries = op.segments[segment].rows * group;
    block.segment = segment;
    for (block.begin = row * group / kBackwardQueries * kBackwardQueries; block.begin < queries;
         block.begin += kBackwardQueries) {
      block.end = std::min(queries, block.begin + kBackwardQueries);
      body(block);
    }
  };

  if (whole) {
    auto packs = arena.span<AttentionPack>(slots);
    for (auto& p : packs) p = make_pack(op, trees.max_tiles, arena);
    slot_items(ctx, slots, units, [&](int64_t slot, int64_t unit) {
      const int64_t tree = unit / kv_heads;
      const std::span<const int32_t> members(trees.segments + trees.begin[tree],
                                             trees.begin[tree + 1] - trees.begin[tree]);
      BackwardBlock block = all;
      block.kv_head = unit % kv_heads;
      block.tile_end = trees.tile_begin[tree + 1] - trees.tile_begin[tree];
      for (const int32_t s : members) {
        attention_backward_pack(op, s, trees.first_tile[s], block.kv_head, packs[slot]);
      }
      for (const int32_t s : members) {
        for_blocks(block, s, 0, [&](const BackwardBlock& b) {
          attention_backward_block(op, b, packs[slot], scratch[slot]);
        });
      }
      for (const int32_t s : members) {
        attention_backward_store(op, s, trees.first_tile[s], block.kv_head, 0, op.segments[s].rows,
                                 packs[slot]);
      }
    });
    return;
  }

  const int64_t n = static_cast<int64_t>(op.segments.size());
  auto packs = arena.span<AttentionPack>(units);
  for (int64_t u = 0; u < units; ++u) {
    const int64_t tree = u / kv_heads;
    packs[u] = make_pack(op, trees.tile_begin[tree + 1] - trees.tile_begin[tree], arena);
  }
  parallel_items(ctx, n * kv_heads, [&](int64_t item) {
    const int64_t s = item / kv_heads;
    const int64_t kv_head = item % kv_heads;
    attention_backward_pack(op, s, trees.first_tile[s], kv_head,
                            packs[trees.of_segment[s] * kv_heads + kv_head]);
  });
  // Items of a segment: its groups of key tiles, then its query blocks.
  int64_t* item_end = arena.alloc<int64_t>(n);
  int64_t items = 0;
  for (int64_t s = 0; s < n; ++s) {
    items += ceil_div(op.segments[s].rows, kGroupTiles * kKvBlock);
    items += ceil_div(op.segments[s].rows * group, kBackwardQueries);
    item_end[s] = items;
  }
  slot_items(ctx, slots, items * kv_heads, [&](int64_t slot, int64_t item) {
    const int64_t s = std::upper_bound(item_end, item_end + n, item / kv_heads) - item_end;
    const int64_t rows = op.segments[s].rows;
    const int64_t tree = trees.of_segment[s];
    const int64_t key_groups = ceil_div(rows, kGroupTiles * kKvBlock);
    const int64_t part = item / kv_heads - (s == 0 ? 0 : item_end[s - 1]);
    BackwardBlock block = all;
    block.kv_head = item % kv_heads;
    const AttentionPack& pack = packs[tree * kv_heads + block.kv_head];
    if (part >= key_groups) {
      block.keys = false;
      block.segment = s;
      block.tile_end = trees.tile_begin[tree + 1] - trees.tile_begin[tree];
      block.begin = (part - key_groups) * kBackwardQueries;
      block.end = std::min(rows * group, block.begin + kBackwardQueries);
      attention_backward_block(op, block, pack, scratch[slot]);
      return;
    }
    const int64_t row_begin = part * kGroupTiles * kKvBlock;
    const int64_t row_end = std::min(rows, row_begin + kGroupTiles * kKvBlock);
    block.queries = false;
    block.tile_begin = trees.first_tile[s] + part * kGroupTiles;
    block.tile_end = block.tile_begin + ceil_div(row_end - row_begin, kKvBlock);
    for (int64_t i = trees.begin[tree]; i < trees.begin[tree + 1]; ++i) {
      const int64_t reader = trees.segments[i];
      if (!descends(op.segments, reader, s)) continue;
      for_blocks(block, reader, reader == s ? row_begin : 0,
                 [&](const BackwardBlock& b) { attention_backward_block(op, b, pack, scratch[slot]); });
    }
    attention_backward_store(op, s, trees.first_tile[s], block.kv_head, row_begin, row_end, pack);
  });
}

}  // namespace orrery
