// The forward of attention in the class dot16-rz25. Each item is a block of queries of
// one segment and kv head, which walks the tiles of keys in rising order. What holds,
// and gives the bits of docs/numerics.md:
//   1. Queries rise with their rows, so those that see a tile are the block's last
//      ones; nothing is computed for the others. No step of a chain, maximum or sum
//      takes in more than one query, so that the cut into items changes no bit.
//   2. A tile is read as far as the segment's table goes, in whole blocks of the pool:
//      every slot there has been written or zeroed. What lies beyond would add zeros.
//   3. Weights are 0 for the keys that a query does not see, and those keys' values are
//      multiplied all the same, as tensor cores do.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot16_attention_forward.cc"
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_schedule.h"
#include "kernels/cpu/dot16.h"
#include "kernels/cpu/dot16_attention.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/bf16-inl.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace dot16_attention {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
using cpu::kDot16TileKeys;

HWY_INLINE float exp2_of(float x) {
  const D d;
  return hn::GetLane(exp2_f32(d, hn::Set(d, x)));
}

/// x * c for the `count` floats at x, whole vectors.
HWY_INLINE void scale_floats(float* HWY_RESTRICT x, int64_t count, float c) {
  const D d;
  const V factor = hn::Set(d, c);
  for (int64_t i = 0; i < count; i += hn::Lanes(d))
    hn::Store(hn::Mul(hn::Load(d, x + i), factor), d, x + i);
}

/// One query's products become its weights, in f32 and rounded. Returns the new m. A
/// score that is NaN is not the maximum, but makes a weight that is NaN.
HWY_INLINE float weigh(float* HWY_RESTRICT weights, Bf16* HWY_RESTRICT p, int64_t seen,
                       const cpu::Dot16Tile& tile, float score_scale, float m) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const V scale = hn::Set(d, score_scale);
  V largest = hn::Set(d, m);
  for (int64_t j = 0; j < tile.columns; j += lanes) {
    const V s = hn::Mul(hn::Load(d, weights + j), scale);
    hn::Store(s, d, weights + j);
    const auto counts =
        hn::And(hn::FirstN(d, std::clamp<int64_t>(seen - j, 0, lanes)), hn::Gt(s, largest));
    largest = hn::IfThenElse(counts, s, largest);
  }
  m = hn::GetLane(hn::MaxOfLanes(d, largest));
  const V top = hn::Set(d, m);
  for (int64_t j = 0; j < tile.columns; j += lanes) {
    const V weight = exp2_f32(d, hn::Sub(hn::Load(d, weights + j), top));
    const V visible =
        hn::IfThenElseZero(hn::FirstN(d, std::clamp<int64_t>(seen - j, 0, lanes)), weight);
    hn::Store(visible, d, weights + j);
    store_floats(visible, d, p + j);
  }
  std::fill(p + tile.columns, p + tile.keys, Bf16{});
  return m;
}

/// Adds a query's weights to its four sums.
HWY_INLINE void add_weights(const float* weights, int64_t count, float c, float* sums) {
  const hn::FixedTag<float, cpu::kWeightSums> d4;
  auto l = hn::Mul(hn::LoadU(d4, sums), hn::Set(d4, c));
  for (int64_t j = 0; j < count; j += 2 * cpu::kWeightSums) {
    hn::Vec<decltype(d4)> even, odd;
    hn::LoadInterleaved2(d4, weights + j, even, odd);
    l = hn::Add(l, hn::Add(even, odd));
  }
  hn::StoreU(l, d4, sums);
}

}  // namespace dot16_attention

/// A block of the pool, of one kv head, becomes kKvBlock columns of the tile's keys and
/// as many rows of its values.
void dot16_unpack_block(const Bf16* keys, const Bf16* values, int64_t head_dim, Bf16* k, Bf16* v) {
  const hn::CappedTag<uint16_t, 16> d;
  const int64_t lanes = hn::Lanes(d), columns = cpu::value_columns(head_dim);
  const auto split = [&](const Bf16* from, int64_t count, Bf16* even, Bf16* odd) HWY_ATTR {
    for (int64_t i = 0; i < count; i += lanes) {
      hn::Vec<decltype(d)> a, b;
      hn::LoadInterleaved2(d, reinterpret_cast<const uint16_t*>(from + 2 * i), a, b);
      hn::StoreU(a, d, reinterpret_cast<uint16_t*>(even + i));
      if (odd != nullptr) hn::StoreU(b, d, reinterpret_cast<uint16_t*>(odd + i));
    }
  };
  for (int64_t x = 0; x < head_dim; x += 2) {
    Bf16* const to = k + x * cpu::kDot16TileKeys;
    split(keys + x * kKvBlock, kKvBlock, to, x + 1 < head_dim ? to + cpu::kDot16TileKeys : nullptr);
  }
  for (int64_t j = 0; j < kKvBlock; j += 2)
    split(values + j * columns, columns, v + j * columns, v + (j + 1) * columns);
}

/// Weights of a tile from its products, and what they change of the state but o's new
/// products.
void dot16_weigh_tile(cpu::Dot16Item& item, const cpu::Dot16Tile& tile, float score_scale,
                      int64_t columns) {
  using namespace dot16_attention;  // NOLINT(google-build-using-namespace)
  cpu::Dot16State& state = item.split;
  for (int64_t i = tile.first; i < item.count; ++i) {
    float* const weights = item.weights + i * kDot16TileKeys;
    const int64_t seen = std::min(item.position[i] + 1 - tile.begin, tile.columns);
    const float m =
        weigh(weights, item.p + i * kDot16TileKeys, seen, tile, score_scale, state.m[i]);
    const float c = tile.opens_split ? 0.0f : exp2_of(state.m[i] - m);
    state.m[i] = m;
    add_weights(weights, tile.columns, c, state.l[i]);
    scale_floats(state.o + i * columns, columns, c);
  }
}

/// Merges the state of a split into that of the splits before it.
void dot16_merge_split(cpu::Dot16Item& item, int64_t first, int64_t columns) {
  using namespace dot16_attention;  // NOLINT(google-build-using-namespace)
  const D d;
  for (int64_t i = first; i < item.count; ++i) {
    cpu::Dot16State &a = item.all, &b = item.split;
    const float m = b.m[i] > a.m[i] ? b.m[i] : a.m[i];
    const float c_a = exp2_of(a.m[i] - m), c_b = exp2_of(b.m[i] - m);
    a.m[i] = m;
    for (int64_t q = 0; q < cpu::kWeightSums; ++q) {
      const float kept = a.l[i][q] * c_a, added = b.l[i][q] * c_b;
      a.l[i][q] = kept + added;
    }
    float* const o = a.o + i * columns;
    const float* const more = b.o + i * columns;
    for (int64_t x = 0; x < columns; x += hn::Lanes(d)) {
      const V kept = hn::Mul(hn::Load(d, o + x), hn::Set(d, c_a)),
              added = hn::Mul(hn::Load(d, more + x), hn::Set(d, c_b));
      hn::Store(hn::Add(kept, added), d, o + x);
    }
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(dot16_unpack_block);
HWY_EXPORT(dot16_weigh_tile);
HWY_EXPORT(dot16_merge_split);

namespace {

Dot16Item make_item(int64_t head_dim, ScratchScope& memory) {
  const int64_t columns = value_columns(head_dim);
  Dot16Item item;
  item.q = memory.alloc<Bf16>(kDot16Queries * head_dim);
  item.k = memory.alloc<Bf16>(head_dim * kDot16TileKeys);
  item.v = memory.alloc<Bf16>(kDot16TileKeys * columns);
  item.weights = memory.alloc<float>(kDot16Queries * kDot16TileKeys);
  item.p = memory.alloc<Bf16>(kDot16Queries * kDot16TileKeys);
  for (Dot16State* state : {&item.split, &item.all})
    state->o = memory.alloc<float>(kDot16Queries * columns);
  return item;
}

/// The queries of a segment from `begin` on, as in ForwardItem.
void gather_queries(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                    int64_t begin, Dot16Item& item) {
  const int64_t group = op.q.heads / op.kv_heads;
  item.count = std::min(segment.rows * group - begin, kDot16Queries);
  for (int64_t i = 0; i < item.count; ++i) {
    const int64_t row = (begin + i) / group, head = kv_head * group + (begin + i) % group;
    item.position[i] = segment.position + row;
    std::copy_n(at(op.q, segment.row_begin + row, head), op.head_dim, item.q + i * op.head_dim);
  }
}

void clear_state(int64_t count, int64_t columns, Dot16State& state) {
  std::fill_n(state.m, count, -std::numeric_limits<float>::infinity());
  std::fill_n(state.l[0], count * kWeightSums, 0.0f);
  std::fill_n(state.o, count * columns, 0.0f);
}

/// Takes the tile's keys and values out of the pool.
void unpack_tile(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                 const Dot16Tile& tile, Dot16Item& item) {
  const int64_t columns = value_columns(op.head_dim);
  for (int64_t j = 0; j < tile.keys; j += kKvBlock) {
    const int64_t block = op.tables[segment.table + (tile.begin + j) / kKvBlock];
    const int64_t slab = block * op.kv_heads + kv_head;
    HWY_DYNAMIC_DISPATCH(dot16_unpack_block)
    (op.keys + slab * key_elements(DType::kBF16, op.head_dim),
     op.values + slab * value_elements(DType::kBF16, op.head_dim), op.head_dim, item.k + j,
     item.v + j * columns);
  }
}

void attend(const PairsForwardArgs& op, const Dot16Tile& tile, Dot16Item& item) {
  const int64_t columns = value_columns(op.head_dim), queries = item.count - tile.first;
  dot16_product({.m = queries,
                 .n = tile.columns,
                 .k = op.head_dim,
                 .a = item.q + tile.first * op.head_dim,
                 .a_row = op.head_dim,
                 .b = item.k,
                 .b_inner = kDot16TileKeys,
                 .c = item.weights + tile.first * kDot16TileKeys,
                 .c_stride = kDot16TileKeys});
  HWY_DYNAMIC_DISPATCH(dot16_weigh_tile)(item, tile, dot16_score_scale(op.scale), columns);
  dot16_product({.m = queries,
                 .n = op.head_dim,
                 .k = tile.keys,
                 .a = item.p + tile.first * kDot16TileKeys,
                 .a_row = kDot16TileKeys,
                 .b = item.v,
                 .b_inner = columns,
                 .c = item.split.o + tile.first * columns,
                 .c_stride = columns,
                 .accumulate = true});
}

/// What queries [first, count) have of a split joins what they have of those before.
void end_split(int64_t first, int64_t columns, bool is_first, Dot16Item& item) {
  if (is_first) {
    std::swap(item.split, item.all);
  } else {
    HWY_DYNAMIC_DISPATCH(dot16_merge_split)(item, first, columns);
  }
}

void store_outputs(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                   int64_t begin, const Dot16Item& item) {
  const int64_t group = op.q.heads / op.kv_heads, columns = value_columns(op.head_dim);
  for (int64_t i = 0; i < item.count; ++i) {
    const int64_t row = segment.row_begin + (begin + i) / group,
                  head = kv_head * group + (begin + i) % group;
    const float* const sums = item.all.l[i];
    const float l = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    if (op.lse.data != nullptr) {
      const float above = log_f32(l) * kLog2E;
      cpu::row(op.lse, row)[head] = item.all.m[i] + above;
    }
    const float* const o = item.all.o + i * columns;
    Bf16* const out = at(op.out, row, head);
    for (int64_t x = 0; x < op.head_dim; ++x) out[x] = to_bf16(o[x] / l + 0.0f);
  }
}

void forward_item(const PairsForwardArgs& op, const PlannedSegment& segment, int64_t kv_head,
                  int64_t begin, Dot16Item& item) {
  const int64_t columns = value_columns(op.head_dim);
  // Whole blocks of the segment's table.
  const int64_t written = ceil_div(segment.position + segment.rows, kKvBlock) * kKvBlock;
  gather_queries(op, segment, kv_head, begin, item);
  const int64_t last = item.position[item.count - 1];
  const auto first_that_sees = [&](int64_t position) {
    return std::lower_bound(item.position, item.position + item.count, position) - item.position;
  };
  for (int64_t split = 0; split <= last; split += kDot16SplitKeys) {
    const int64_t end = std::min(split + kDot16SplitKeys, last + 1);
    clear_state(item.count, columns, item.split);
    Dot16Tile tile;
    for (tile.begin = split; tile.begin < end; tile.begin += kDot16TileKeys) {
      tile.keys = std::min(kDot16TileKeys, written - tile.begin);
      tile.columns = std::min(tile.keys, ceil_div(last + 1 - tile.begin, kKvBlock) * kKvBlock);
      tile.first = first_that_sees(tile.begin);
      tile.opens_split = tile.begin == split;
      unpack_tile(op, segment, kv_head, tile, item);
      attend(op, tile, item);
    }
    end_split(first_that_sees(split), columns, split == 0, item);
  }
  store_outputs(op, segment, kv_head, begin, item);
}

}  // namespace

void dot16_attention_forward(const Context& ctx, const AttentionForward& op) {
  const AttentionShape& shape = op.plan.shape;
  const int64_t group = shape.heads / shape.kv_heads;
  const PairsForwardArgs args{heads_of(op.out.as<Bf16>(), shape.heads, shape.head_dim),
                              op.lse,
                              heads_of(op.q.as<const Bf16>(), shape.heads, shape.head_dim),
                              keys<Bf16>(op.pool),
                              values<Bf16>(op.pool),
                              op.plan.tables.data,
                              shape.kv_heads,
                              shape.head_dim,
                              op.scale};
  const Span<const PlannedSegment> segments = host(op.plan.segments);
  Array<int64_t> item_end;  // [segment], one past its last item
  int64_t items = 0;
  for (const PlannedSegment& s : segments)
    item_end.push_back(items += ceil_div(s.rows * group, kDot16Queries) * shape.kv_heads);
  ScratchScope memory;
  Array<Dot16Item> work(std::min<int64_t>(std::max(ctx.threads, 1), items));
  for (Dot16Item& item : work) item = make_item(shape.head_dim, memory);
  parallel_slots(ctx, work.size(), items, [&](int64_t slot, int64_t index) {
    // A segment's last queries, which see the most keys, are handed out first.
    const int64_t s = std::upper_bound(item_end.begin(), item_end.end(), index) - item_end.begin();
    const int64_t left = item_end[s] - 1 - index;
    forward_item(args, segments[s], left % shape.kv_heads, left / shape.kv_heads * kDot16Queries,
                 work[slot]);
  });
}

}  // namespace orrery::kernels::cpu
#endif
