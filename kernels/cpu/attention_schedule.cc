// How attention is spread over threads.
//
// Forward: a segment's queries are cut into items. In decoding each sequence has a
// handful of queries against a long table, so consecutive sequences that begin with the
// same blocks (the samples of a prompt) are taken together as a run: the shared keys
// and values are read once, by taller register tiles. What holds:
//   1. Each query (a row and head) is in exactly one item, which alone writes its
//      output and lse. Its bits do not depend on the item (attention_queries-inl.h), so
//      neither threads nor the cut into items nor runs change the result.
//   2. The items of a batch of segments are numbered run by run: run r's are those from
//      the end_item of the run before to its own. Within a run they count down, so that
//      a kv head's last queries, which see the most keys, are handed out first.
//   3. A run of one segment has kv_heads / heads_of items for each of its blocks_of
//      blocks of queries; a run of several segments has one item per kv head.
//   4. A run's segments all begin with its `shared` blocks, and its queries of one kv
//      head fit a thread's scratch: at most forward_item_queries.
//
// Backward: either one thread walks a whole (tree, kv head), query block by query
// block, which computes each score once; or, where there are too few of those for the
// threads, some items compute dk and dv of a group of key tiles and others dq of a
// query block, which computes the scores twice. What holds in both:
//   5. The dk and dv of a key are summed by one thread, over the tree's segments in
//      list order and each segment's query blocks in rising order. The dq of a query is
//      summed by one thread, in one attention_backward_block over all its keys. These
//      are the orders of the contract, so both ways give the same bits.
//   6. A tree's tiles are numbered by segment in list order: segment s has those from
//      first_tile[s] on, and its rows are cut into tiles on their own.
//   7. Items that run at the same time write different rows of dq, dk and dv, and
//      different tiles of a pack's dk and dv. A slot's scratch is its thread's own.
#include <algorithm>
#include <array>
#include <atomic>

#include "core/parallel.h"
#include "kernels/cpu/attention.h"

namespace orrery::kernels {
namespace {

// Segments whose items are handed out together. Bounds the list of runs, which lies on
// the stack.
constexpr int64_t kSegmentBatch = 512;
// Multiply-adds worth a thread: about 10 microseconds of decoding, several times what
// starting a team costs.
constexpr int64_t kThreadWork = 250'000;
// Key tiles of one item that computes dk and dv.
constexpr int64_t kGroupTiles = 4;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Consecutive segments that are taken together, or one segment.
struct PrefixRun {
  int64_t first = 0;
  int64_t count = 1;
  int64_t shared = 0;    ///< leading blocks that all share and see wholly; 0 for one segment
  int64_t end_item = 0;  ///< one past its last item
};

/// How many leading blocks both tables share, of which both rows see all positions.
int64_t shared_blocks(const KvSegment& a, const KvSegment& b) {
  const int64_t whole = (std::min(a.position, b.position) + 1) / kKvBlock;
  const auto end = a.blocks.begin() + whole;
  return std::mismatch(a.blocks.begin(), end, b.blocks.begin()).first - a.blocks.begin();
}

/// The run of at most `most` segments that begins with the first of `segments`. Only
/// segments of one row are taken together. The first two set `shared`; others join
/// while they share at least as much.
PrefixRun next_run(Span<const KvSegment> segments, int64_t most) {
  PrefixRun run;
  const auto joins = [&](int64_t i) {
    return i < most && i < segments.size() && segments[i].rows == 1;
  };
  if (segments[0].rows != 1 || !joins(1)) return run;
  run.shared = shared_blocks(segments[0], segments[1]);
  if (run.shared == 0) return run;
  run.count = 2;
  while (joins(run.count) && shared_blocks(segments[0], segments[run.count]) >= run.shared)
    ++run.count;
  return run;
}

/// The trees that the segments form, numbered by their roots in list order.
struct Trees {
  int32_t count = 0;
  int64_t depth = 0;              ///< most segments on a path
  int64_t max_tiles = 0;          ///< most tiles of one tree
  int64_t tiles = 0;              ///< tiles of all trees
  int32_t* of_segment = nullptr;  ///< [segment], its tree
  int64_t* first_tile = nullptr;  ///< [segment], within its tree
  int32_t* segments = nullptr;    ///< sorted by tree, in list order within one
  int64_t* begin = nullptr;       ///< [count + 1], into `segments`
  int64_t* tile_begin = nullptr;  ///< [count + 1], over all trees
  double* cost = nullptr;         ///< [count], pairs of a query and a key
};

Trees make_trees(Span<const AttentionSegment> segments, Arena& arena) {
  const int64_t n = segments.size();
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
  for (int32_t i = 0; i < n; ++i) {
    const AttentionSegment& s = segments[i];
    const bool root = s.parent < 0;
    const int32_t tree = root ? trees.count++ : trees.of_segment[s.parent];
    if (root) tiles[tree] = 0, trees.cost[tree] = 0;
    trees.of_segment[i] = tree;
    depth[i] = root ? 1 : depth[s.parent] + 1;
    trees.depth = std::max<int64_t>(trees.depth, depth[i]);
    trees.first_tile[i] = tiles[tree];
    tiles[tree] += ceil_div(s.rows, kKvBlock);
    trees.cost[tree] += s.rows * (s.position + 0.5 * s.rows + 0.5);
    ++trees.begin[tree + 2];
  }
  trees.tile_begin[0] = 0;
  for (int64_t t = 0; t < trees.count; ++t) {
    trees.begin[t + 2] += trees.begin[t + 1];
    trees.tile_begin[t + 1] = trees.tile_begin[t] + tiles[t];
    trees.max_tiles = std::max(trees.max_tiles, tiles[t]);
  }
  trees.tiles = trees.tile_begin[trees.count];
  // A counting sort by tree. So far begin[t + 1] is where tree t's segments start;
  // placing them moves it to where they end, which is where the next tree's start.
  for (int32_t i = 0; i < n; ++i) trees.segments[trees.begin[trees.of_segment[i] + 1]++] = i;
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
  scratch.path = arena.alloc<int64_t>(depth);
  return scratch;
}

/// Whether walking each (tree, kv head) whole is expected to be faster. That takes 5
/// matrix products, but is only as parallel as there are trees; the other way takes 7,
/// which spread evenly. Each unit goes to the thread with the least load so far.
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
  return 5 * *std::max_element(load, load + threads) <= 7 * total / threads;
}

/// Calls body(slot, item) for all items. A slot is one thread's own meanwhile.
template <class Body>
void parallel_slots(const Context& ctx, int64_t slots, int64_t items, Body&& body) {
  std::atomic<int64_t> next = 0;
  parallel_items(ctx, slots, [&](int64_t slot) {
    for (int64_t item = next++; item < items; item = next++) body(slot, item);
  });
}

bool descends(Span<const AttentionSegment> segments, int64_t segment, int64_t ancestor) {
  int64_t s = segment;
  while (s > ancestor) s = segments[s].parent;
  return s == ancestor;
}

}  // namespace

void attention_forward_cpu(const Context& ctx, const AttentionForward& op,
                           Span<const KvSegment> segments) {
  const int64_t kv_heads = op.pool.kv_heads;
  const int64_t group = op.q.heads / kv_heads;
  const int64_t item_queries = forward_item_queries(op.pool.head_dim);
  int64_t pairs = 0;
  for (const KvSegment& s : segments) pairs += s.rows * (s.position + s.rows);
  const double work = 2.0 * (pairs * op.q.heads) * op.pool.head_dim;
  Context team = ctx;
  team.threads =
      static_cast<int>(std::clamp<double>(work / kThreadWork, 1.0, std::max(ctx.threads, 1)));
  for (int64_t start = 0; start < segments.size(); start += kSegmentBatch) {
    const int64_t size = std::min(kSegmentBatch, segments.size() - start);
    const Span<const KvSegment> batch = segments.subspan(start, size);
    // An item takes all kv heads of a short segment (decoding) where there are enough
    // segments for the threads: less overhead, longer reads.
    const bool whole = size >= 4 * team.threads;
    // Runs are short enough to leave several items for every thread.
    int64_t run_queries = item_queries;
    if (team.threads > 1)
      run_queries = std::min(run_queries, size * group * kv_heads / (4 * team.threads));
    const int64_t most = group <= kMaxPrefixGroup ? run_queries / group : 1;
    const auto blocks_of = [&](const KvSegment& s) {
      return (s.rows * group + item_queries - 1) / item_queries;
    };
    const auto heads_of = [&](const KvSegment& s) {
      return whole && blocks_of(s) == 1 ? kv_heads : 1;
    };
    std::array<PrefixRun, kSegmentBatch> runs;  // NOLINT: as many as there are, filled just below
    int64_t run_count = 0, items = 0;
    for (int64_t i = 0; i < size; i += runs[run_count++].count) {
      PrefixRun run = next_run(batch.subspan(i), most);
      run.first = i;
      items += run.count > 1 ? kv_heads : kv_heads / heads_of(batch[i]) * blocks_of(batch[i]);
      run.end_item = items;
      runs[run_count] = run;
    }
    const auto run_of = [&](int64_t index) -> const PrefixRun& {
      return *std::upper_bound(runs.begin(), runs.begin() + run_count, index,
                               [](int64_t i, const PrefixRun& r) { return i < r.end_item; });
    };
    parallel_items(team, items, [&](int64_t index) {
      const PrefixRun& run = run_of(index);
      const int64_t left = run.end_item - 1 - index;  // invariant 2
      if (run.count > 1) {
        attention_forward_shared_prefix(op, batch.subspan(run.first, run.count), run.shared, left);
        return;
      }
      const KvSegment& segment = batch[run.first];
      const int64_t blocks = blocks_of(segment);
      ForwardItem item;
      item.kv_head_begin = left / blocks;
      item.kv_head_end = item.kv_head_begin + heads_of(segment);
      item.begin = left % blocks * item_queries;
      item.end = std::min(segment.rows * group, item.begin + item_queries);
      // The item that this thread will probably take next: the others take those
      // between.
      const int64_t next_index = index + team.threads;
      if (blocks == 1 && next_index < items) {
        const PrefixRun& next = run_of(next_index);
        item.next = &batch[next.first];
        item.next_kv_head =
            (next.end_item - 1 - next_index) / std::max<int64_t>(blocks_of(*item.next), 1);
      }
      attention_forward_item(op, segment, item);
    });
  }
}

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
  // Calls body(block) for the blocks of a segment's queries, from the one that holds
  // `row` on. Queries of that block before `row` add nothing to keys from `row` on, as
  // they do not see them.
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
    parallel_slots(ctx, slots, units, [&](int64_t slot, int64_t unit) {
      const int64_t tree = unit / kv_heads;
      const Span<const int32_t> members(trees.segments + trees.begin[tree],
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

  const int64_t n = op.segments.size();
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
  // A segment's items are its groups of key tiles (dk, dv), then its query blocks (dq).
  int64_t* item_end = arena.alloc<int64_t>(n);
  int64_t items = 0;
  for (int64_t s = 0; s < n; ++s) {
    items += ceil_div(op.segments[s].rows, kGroupTiles * kKvBlock);
    items += ceil_div(op.segments[s].rows * group, kBackwardQueries);
    item_end[s] = items;
  }
  parallel_slots(ctx, slots, items * kv_heads, [&](int64_t slot, int64_t item) {
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
      for_blocks(block, reader, reader == s ? row_begin : 0, [&](const BackwardBlock& b) {
        attention_backward_block(op, b, pack, scratch[slot]);
      });
    }
    attention_backward_store(op, s, trees.first_tile[s], block.kv_head, row_begin, row_end, pack);
  });
}

}  // namespace orrery::kernels
