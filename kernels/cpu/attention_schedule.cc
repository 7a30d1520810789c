// How attention is spread over threads. What depends on the plan alone (runs, items,
// trees) is worked out once, for the calls of all layers. In the class dot16-rz25
// dot16_attention_forward.cc and dot16_attention_backward.cc cut their own items; of
// what is here they take the trees and the choice of how to walk them.
//
// Forward: a segment's queries are cut into items. In decoding each sequence has a
// handful of queries against a long table, so consecutive sequences that begin with the
// same blocks (the samples of a prompt) are taken together as a run: the shared keys
// and values are read once, by taller register tiles. What holds:
//   1. Each query (a row and head) is in exactly one item, which alone writes its
//      output and lse. Its bits do not depend on the item (attention_queries-inl.h,
//      pairs_attention-inl.h), so neither threads nor the cut into items nor runs
//      change the result.
//   2. Items are numbered run by run: run r's are those from the end_item of the run
//      before to its own. Within a run they count down, so that a kv head's last
//      queries, which see the most keys, are handed out first.
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

#include "core/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_schedule.h"
#include "kernels/cpu/dot16_attention.h"
#include "kernels/cpu/pairs_attention_backward.h"
#include "kernels/cpu/scratch.h"

namespace orrery::kernels::cpu {
namespace {

// Multiply-adds worth a thread: about 10 microseconds of decoding, several times what
// starting a team costs.
constexpr int64_t kThreadWork = 250'000;
// Key tiles of one item that computes dk and dv.
constexpr int64_t kGroupTiles = 4;

/// Consecutive segments that are taken together, or one segment.
struct PrefixRun {
  int64_t first = 0;
  int64_t count = 1;
  int64_t shared = 0;    ///< leading blocks that all share and see wholly; 0 for one segment
  int64_t end_item = 0;  ///< one past its last item
};

/// How many leading blocks both tables share, of which both rows see all positions.
int64_t shared_blocks(const PlannedSegment& a, const PlannedSegment& b,
                      Span<const int32_t> tables) {
  const int64_t whole = (std::min(a.position, b.position) + 1) / kKvBlock;
  const auto begin = tables.begin() + a.table;
  return std::mismatch(begin, begin + whole, tables.begin() + b.table).first - begin;
}

/// The run of at most `most` segments that begins with the first of `segments`. Only
/// segments of one row are taken together. The first two set `shared`; others join
/// while they share at least as much.
PrefixRun next_run(Span<const PlannedSegment> segments, Span<const int32_t> tables, int64_t most) {
  PrefixRun run;
  const auto joins = [&](int64_t i) {
    return i < most && i < segments.size() && segments[i].rows == 1;
  };
  if (segments[0].rows != 1 || !joins(1)) return run;
  run.shared = shared_blocks(segments[0], segments[1], tables);
  if (run.shared == 0) return run;
  run.count = 2;
  while (joins(run.count) && shared_blocks(segments[0], segments[run.count], tables) >= run.shared)
    ++run.count;
  return run;
}

Trees make_trees(Span<const AttentionSegment> segments) {
  const int64_t n = segments.size();
  Trees trees;
  trees.of_segment.resize(n);
  trees.first_tile.resize(n);
  trees.segments.resize(n);
  trees.begin.assign(2, 0);
  Array<int64_t> depth(n), tiles;
  for (int32_t i = 0; i < n; ++i) {
    const AttentionSegment& s = segments[i];
    const bool root = s.parent < 0;
    if (root) {
      tiles.push_back(0);
      trees.cost.push_back(0);
      trees.begin.push_back(0);
    }
    const int32_t tree = root ? static_cast<int32_t>(trees.count++) : trees.of_segment[s.parent];
    trees.of_segment[i] = tree;
    depth[i] = root ? 1 : depth[s.parent] + 1;
    trees.depth = std::max(trees.depth, depth[i]);
    trees.first_tile[i] = tiles[tree];
    tiles[tree] += ceil_div(s.rows, kKvBlock);
    trees.cost[tree] += s.rows * (s.position + 0.5 * s.rows + 0.5);
    ++trees.begin[tree + 2];
  }
  trees.tile_begin.push_back(0);
  for (int64_t t = 0; t < trees.count; ++t) {
    trees.begin[t + 2] += trees.begin[t + 1];
    trees.tile_begin.push_back(trees.tile_begin[t] + tiles[t]);
    trees.max_tiles = std::max(trees.max_tiles, tiles[t]);
  }
  // A counting sort by tree. So far begin[t + 1] is where tree t's segments start;
  // placing them moves it to where they end, which is where the next tree's start.
  for (int32_t i = 0; i < n; ++i) trees.segments[trees.begin[trees.of_segment[i] + 1]++] = i;
  return trees;
}

AttentionPack make_pack(const BackwardArgs& op, int64_t tiles, ScratchScope& memory) {
  const int64_t packed = tiles * kKvBlock * op.k.head_dim;
  const int64_t padded = tiles * kKvBlock * padded_head_dim(op.k.head_dim);
  AttentionPack pack;
  pack.k_tiles = memory.alloc<float>(packed);
  pack.v_tiles = memory.alloc<float>(packed);
  pack.k_rows = memory.alloc<float>(padded);
  pack.dk = memory.alloc<float>(padded);
  pack.dv = memory.alloc<float>(padded);
  return pack;
}

AttentionScratch make_scratch(const BackwardArgs& op, int64_t depth, ScratchScope& memory) {
  const int64_t packed = kBackwardQueries * op.k.head_dim;
  const int64_t padded = kBackwardQueries * padded_head_dim(op.k.head_dim);
  AttentionScratch scratch;
  scratch.q_tiles = memory.alloc<float>(packed);
  scratch.dout_tiles = memory.alloc<float>(packed);
  scratch.q_rows = memory.alloc<float>(padded);
  scratch.dout_rows = memory.alloc<float>(padded);
  scratch.dq_rows = memory.alloc<float>(padded);
  scratch.path = memory.alloc<int64_t>(depth);
  return scratch;
}

PairsAttentionPack make_pack(const PairsBackwardArgs& op, int64_t tiles, ScratchScope& memory) {
  const int64_t blocks = tiles * kKvBlock * pairs_head_dim(op.k.head_dim);
  const int64_t padded = tiles * kKvBlock * padded_head_dim(op.k.head_dim);
  PairsAttentionPack pack;
  pack.k_pairs = memory.alloc<Bf16>(blocks);
  pack.v_pairs = memory.alloc<Bf16>(blocks);
  pack.k_rows = memory.alloc<Bf16>(padded);
  pack.dk = memory.alloc<float>(padded);
  pack.dv = memory.alloc<float>(padded);
  return pack;
}

PairsAttentionScratch make_scratch(const PairsBackwardArgs& op, int64_t depth,
                                   ScratchScope& memory) {
  const int64_t rows = kPairsBackwardQueries * pairs_head_dim(op.k.head_dim);
  const int64_t weights = kPairsBackwardTiles * kPairsBackwardQueries * kKvBlock;
  PairsAttentionScratch scratch;
  scratch.q_rows = memory.alloc<float>(rows);
  scratch.dout_rows = memory.alloc<float>(rows);
  scratch.q_columns = memory.alloc<float>(rows);
  scratch.dout_columns = memory.alloc<float>(rows);
  scratch.ds_rows = memory.alloc<float>(weights);
  scratch.scores = memory.alloc<float>(weights);
  scratch.dp = memory.alloc<float>(weights);
  scratch.p_pairs = memory.alloc<Bf16>(weights);
  scratch.ds_pairs = memory.alloc<Bf16>(weights);
  scratch.dq = memory.alloc<float>(rows);
  scratch.row = memory.alloc<float>(2 * op.k.head_dim);
  scratch.path = memory.alloc<int64_t>(depth);
  return scratch;
}

/// Whether walking each (tree, kv head) whole is expected to be faster. That takes 5
/// matrix products, but is only as parallel as there are trees; the other way takes 7,
/// which spread evenly. Each unit goes to the thread with the least load so far.
bool walks_whole(const Trees& trees, int64_t kv_heads, int64_t threads) {
  if (threads <= 1) return true;
  Array<double> load(threads, 0.0);
  double total = 0;
  for (int64_t unit = 0; unit < trees.count * kv_heads; ++unit) {
    const double cost = trees.cost[unit / kv_heads];
    *std::min_element(load.begin(), load.end()) += cost;
    total += cost;
  }
  return 5 * *std::max_element(load.begin(), load.end()) <= 7 * total / threads;
}

}  // namespace

struct ForwardSchedule {
  int threads = 1;           ///< as many as the work is worth
  int64_t item_queries = 0;  ///< most queries of an item
  /// An item takes all kv heads of a short segment (decoding): where there are enough
  /// segments for the threads, that is less overhead and longer reads.
  bool whole = false;
  int64_t items = 0;
  Array<PrefixRun> runs;

  int64_t blocks_of(const PlannedSegment& s, int64_t group) const {
    return ceil_div(s.rows * group, item_queries);
  }
  int64_t heads_of(const PlannedSegment& s, const AttentionShape& shape) const {
    return whole && blocks_of(s, shape.heads / shape.kv_heads) == 1 ? shape.kv_heads : 1;
  }
  const PrefixRun& run_of(int64_t item) const {
    return *std::upper_bound(runs.begin(), runs.end(), item,
                             [](int64_t i, const PrefixRun& r) { return i < r.end_item; });
  }
};

std::shared_ptr<const ForwardSchedule> schedule_forward(const Context& ctx,
                                                        const AttentionShape& shape,
                                                        Span<const PlannedSegment> segments,
                                                        Span<const int32_t> tables) {
  auto schedule = std::make_shared<ForwardSchedule>();
  const int64_t kv_heads = shape.kv_heads;
  const int64_t group = shape.heads / kv_heads;
  const int64_t size = segments.size();
  schedule->item_queries = forward_item_queries(shape.head_dim);
  int64_t pairs = 0;
  for (const PlannedSegment& s : segments) pairs += s.rows * (s.position + s.rows);
  const double work = 2.0 * (pairs * shape.heads) * shape.head_dim;
  const int threads =
      static_cast<int>(std::clamp<double>(work / kThreadWork, 1.0, std::max(ctx.threads, 1)));
  schedule->threads = threads;
  schedule->whole = size >= 4 * threads;
  // Runs are short enough to leave several items for every thread.
  int64_t run_queries = schedule->item_queries;
  if (threads > 1) run_queries = std::min(run_queries, size * group * kv_heads / (4 * threads));
  const int64_t most = group <= kMaxPrefixGroup ? run_queries / group : 1;
  for (int64_t i = 0; i < size; i += schedule->runs.back().count) {
    const PlannedSegment& s = segments[i];
    PrefixRun run = next_run(segments.subspan(i), tables, most);
    run.first = i;
    schedule->items +=
        run.count > 1 ? kv_heads
                      : kv_heads / schedule->heads_of(s, shape) * schedule->blocks_of(s, group);
    run.end_item = schedule->items;
    schedule->runs.push_back(run);
  }
  return schedule;
}

std::shared_ptr<const BackwardSchedule> schedule_backward(const Context& ctx,
                                                          const AttentionShape& shape,
                                                          Span<const AttentionSegment> segments) {
  auto schedule = std::make_shared<BackwardSchedule>();
  schedule->trees = make_trees(segments);
  schedule->whole = walks_whole(schedule->trees, shape.kv_heads, std::max(ctx.threads, 1));
  if (schedule->whole) return schedule;
  const int64_t group = shape.heads / shape.kv_heads;
  const auto cut = [&](int64_t queries, Array<int64_t>& item_end) {
    int64_t items = 0;
    for (const AttentionSegment& s : segments) {
      items += ceil_div(s.rows, kGroupTiles * kKvBlock) + ceil_div(s.rows * group, queries);
      item_end.push_back(items);
    }
  };
  cut(kBackwardQueries, schedule->item_end);
  cut(kPairsBackwardQueries, schedule->pairs_item_end);
  return schedule;
}

namespace {

/// T: the pool's element type.
template <class T>
void forward_items(const Context& ctx, const AttentionForward& op) {
  const AttentionShape& shape = op.plan.shape;
  const ForwardSchedule& schedule = *op.plan.cpu;
  const int64_t group = shape.heads / shape.kv_heads;
  const BasicForwardArgs<T> args{heads_of(op.out.as<T>(), shape.heads, shape.head_dim),
                                 op.lse,
                                 heads_of(op.q.as<const T>(), shape.heads, shape.head_dim),
                                 keys<T>(op.pool),
                                 values<T>(op.pool),
                                 op.plan.tables.data,
                                 shape.kv_heads,
                                 shape.head_dim,
                                 op.scale};
  const Span<const PlannedSegment> segments = host(op.plan.segments);
  Context team = ctx;
  team.threads = std::min(schedule.threads, std::max(ctx.threads, 1));
  parallel_items(team, schedule.items, [&](int64_t index) {
    const PrefixRun& run = schedule.run_of(index);
    const int64_t left = run.end_item - 1 - index;  // invariant 2
    if (run.count > 1) {
      attention_forward_shared_prefix(args, segments.subspan(run.first, run.count), run.shared,
                                      left);
      return;
    }
    const PlannedSegment& segment = segments[run.first];
    const int64_t blocks = schedule.blocks_of(segment, group);
    ForwardItem item;
    item.kv_head_begin = left / blocks;
    item.kv_head_end = item.kv_head_begin + schedule.heads_of(segment, shape);
    item.begin = left % blocks * schedule.item_queries;
    item.end = std::min(segment.rows * group, item.begin + schedule.item_queries);
    // The item that this thread will probably take next: the others take those between.
    const int64_t next_index = index + team.threads;
    if (blocks == 1 && next_index < schedule.items) {
      const PrefixRun& next = schedule.run_of(next_index);
      item.next = &segments[next.first];
      item.next_kv_head = (next.end_item - 1 - next_index) /
                          std::max<int64_t>(schedule.blocks_of(*item.next, group), 1);
    }
    attention_forward_item(args, segment, item);
  });
}

}  // namespace

void attention_forward(const Context& ctx, const AttentionForward& op) {
  if (op.pool.dtype == DType::kBF16 && ctx.device.dot16()) {
    dot16_attention_forward(ctx, op);
    return;
  }
  op.pool.dtype == DType::kF32 ? forward_items<float>(ctx, op) : forward_items<Bf16>(ctx, op);
}

namespace {

/// What the backward of a type of arguments takes.
template <class Args>
struct BackwardTypes;
template <>
struct BackwardTypes<BackwardArgs> {
  using Pack = AttentionPack;
  using Scratch = AttentionScratch;
  static constexpr int64_t kQueries = kBackwardQueries;
  static const Array<int64_t>& item_end(const BackwardSchedule& s) { return s.item_end; }
};
template <>
struct BackwardTypes<PairsBackwardArgs> {
  using Pack = PairsAttentionPack;
  using Scratch = PairsAttentionScratch;
  static constexpr int64_t kQueries = kPairsBackwardQueries;
  static const Array<int64_t>& item_end(const BackwardSchedule& s) { return s.pairs_item_end; }
};

/// A backward in the making.
template <class Args>
struct Backward {
  using Pack = typename BackwardTypes<Args>::Pack;
  static constexpr int64_t kQueries = BackwardTypes<Args>::kQueries;

  const Context& ctx;
  const Args& args;
  const BackwardSchedule& schedule;
  int64_t kv_heads = 0;
  int64_t group = 0;
  int64_t slots = 0;
  Span<typename BackwardTypes<Args>::Scratch> scratch;  ///< [slots]
  ScratchScope& memory;

  /// Calls body(block) for the blocks of a segment's queries, from the one that holds
  /// `row` on. Queries of that block before `row` add nothing to keys from `row` on, as
  /// they do not see them.
  template <class Body>
  void for_blocks(BackwardBlock block, int64_t segment, int64_t row, Body&& body) const {
    const int64_t queries = args.segments[segment].rows * group;
    block.segment = segment;
    for (block.begin = row * group / kQueries * kQueries; block.begin < queries;
         block.begin += kQueries) {
      block.end = std::min(queries, block.begin + kQueries);
      body(block);
    }
  }
};

/// One thread walks all of a (tree, kv head).
template <class Args>
void backward_whole(const Backward<Args>& work) {
  const Args& op = work.args;
  const Trees& trees = work.schedule.trees;
  const int64_t kv_heads = work.kv_heads;
  Array<typename Backward<Args>::Pack> packs(work.slots);
  for (auto& p : packs) p = make_pack(op, trees.max_tiles, work.memory);
  parallel_slots(work.ctx, work.slots, trees.count * kv_heads, [&](int64_t slot, int64_t unit) {
    const int64_t tree = unit / kv_heads;
    const Span<const int32_t> members = trees.members(tree);
    BackwardBlock block;
    block.first_tile = trees.first_tile.data();
    block.kv_head = unit % kv_heads;
    block.tile_end = trees.tiles(tree);
    for (const int32_t s : members) {
      attention_backward_pack(op, s, trees.first_tile[s], block.kv_head, packs[slot]);
    }
    for (const int32_t s : members) {
      work.for_blocks(block, s, 0, [&](const BackwardBlock& b) {
        attention_backward_block(op, b, packs[slot], work.scratch[slot]);
      });
    }
    for (const int32_t s : members) {
      attention_backward_store(op, s, trees.first_tile[s], block.kv_head, 0, op.segments[s].rows,
                               packs[slot]);
    }
  });
}

/// Groups of key tiles (dk, dv) and query blocks (dq) are items of their own.
template <class Args>
void backward_in_items(const Backward<Args>& work) {
  constexpr int64_t kQueries = Backward<Args>::kQueries;
  const Args& op = work.args;
  const Trees& trees = work.schedule.trees;
  const Array<int64_t>& item_end = BackwardTypes<Args>::item_end(work.schedule);
  const int64_t kv_heads = work.kv_heads, n = op.segments.size();
  Array<typename Backward<Args>::Pack> packs(trees.count * kv_heads);
  for (int64_t u = 0; u < trees.count * kv_heads; ++u)
    packs[u] = make_pack(op, trees.tiles(u / kv_heads), work.memory);
  parallel_items(work.ctx, n * kv_heads, [&](int64_t item) {
    const int64_t s = item / kv_heads;
    const int64_t kv_head = item % kv_heads;
    attention_backward_pack(op, s, trees.first_tile[s], kv_head,
                            packs[trees.of_segment[s] * kv_heads + kv_head]);
  });
  const int64_t items = n == 0 ? 0 : item_end.back() * kv_heads;
  parallel_slots(work.ctx, work.slots, items, [&](int64_t slot, int64_t item) {
    const int64_t s =
        std::upper_bound(item_end.begin(), item_end.end(), item / kv_heads) - item_end.begin();
    const int64_t rows = op.segments[s].rows;
    const int64_t tree = trees.of_segment[s];
    const int64_t key_groups = ceil_div(rows, kGroupTiles * kKvBlock);
    const int64_t part = item / kv_heads - (s == 0 ? 0 : item_end[s - 1]);
    BackwardBlock block;
    block.first_tile = trees.first_tile.data();
    block.kv_head = item % kv_heads;
    const auto& pack = packs[tree * kv_heads + block.kv_head];
    if (part >= key_groups) {
      block.keys = false;
      block.segment = s;
      block.tile_end = trees.tiles(tree);
      block.begin = (part - key_groups) * kQueries;
      block.end = std::min(rows * work.group, block.begin + kQueries);
      attention_backward_block(op, block, pack, work.scratch[slot]);
      return;
    }
    const int64_t row_begin = part * kGroupTiles * kKvBlock;
    const int64_t row_end = std::min(rows, row_begin + kGroupTiles * kKvBlock);
    block.queries = false;
    block.tile_begin = trees.first_tile[s] + part * kGroupTiles;
    block.tile_end = block.tile_begin + ceil_div(row_end - row_begin, kKvBlock);
    for (const int32_t reader : trees.members(tree)) {
      if (!descends(op.segments, reader, s)) continue;
      work.for_blocks(block, reader, reader == s ? row_begin : 0, [&](const BackwardBlock& b) {
        attention_backward_block(op, b, pack, work.scratch[slot]);
      });
    }
    attention_backward_store(op, s, trees.first_tile[s], block.kv_head, row_begin, row_end, pack);
  });
}

template <class T>
void run_backward(const Context& ctx, const AttentionBackward& op) {
  using Args = BasicBackwardArgs<T>;
  const AttentionShape& shape = op.plan.shape;
  const BackwardSchedule& schedule = *op.plan.cpu;
  const auto queries = [&](auto m) { return heads_of(m, shape.heads, shape.head_dim); };
  const auto kv = [&](auto m) { return heads_of(m, shape.kv_heads, shape.head_dim); };
  const Args args{queries(op.dq.as<T>()),
                  kv(op.dk.as<T>()),
                  kv(op.dv.as<T>()),
                  queries(op.dout.as<const T>()),
                  queries(op.out.as<const T>()),
                  queries(op.q.as<const T>()),
                  kv(op.k.as<const T>()),
                  kv(op.v.as<const T>()),
                  op.lse,
                  host(op.plan.segments),
                  op.scale};
  ScratchScope memory;
  const int64_t threads = std::max(ctx.threads, 1);
  const int64_t units = schedule.trees.count * shape.kv_heads;
  const int64_t slots = schedule.whole ? std::min(threads, units) : threads;
  Array<typename BackwardTypes<Args>::Scratch> scratch(slots);
  for (auto& s : scratch) s = make_scratch(args, schedule.trees.depth, memory);
  const Backward<Args> work{ctx,   args,    schedule, shape.kv_heads, shape.heads / shape.kv_heads,
                            slots, scratch, memory};
  schedule.whole ? backward_whole(work) : backward_in_items(work);
}

}  // namespace

void attention_backward(const Context& ctx, const AttentionBackward& op) {
  if (op.q.dtype == DType::kBF16 && ctx.device.dot16()) {
    dot16_attention_backward(ctx, op);
    return;
  }
  op.q.dtype == DType::kBF16 ? run_backward<Bf16>(ctx, op) : run_backward<float>(ctx, op);
}

}  // namespace orrery::kernels::cpu
