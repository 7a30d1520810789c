// The backward of attention in the class dot16-rz25. Rows of a head meet keys of a
// segment of their path, block by block. What holds, and gives the bits of
// docs/numerics.md:
//   1. Blocks of rows and of keys begin at multiples of kDot16Rows and kDot16TileKeys
//      of their segment's rows, so that groups of 16 begin anew at each segment. A
//      ragged group is a segment's last one.
//   2. A query's dq is summed by one thread, over its path from the root, keys rising.
//   3. The chain of a key over a segment's queries is summed by one thread: the heads
//      of the group rising, rows rising. A segment's chain is finished before it joins
//      the sum, which segments do in list order; a key's own segment is the first.
//   4. p and ds are 0 where a query does not see a key. Blocks in which no query sees a
//      key are left out, which changes no bit of numbers that are finite.
// As with the other classes either one thread walks a whole (tree, kv head), which
// computes each score once, or some items compute dk and dv of a block of keys and
// others dq of a block of rows. Both give the same bits, by 2 and 3.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot16_attention_backward.cc"
#include <algorithm>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_schedule.h"
#include "kernels/cpu/dot16.h"
#include "kernels/cpu/dot16_attention.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// p and ds of a block from its products.
void dot16_weigh_gradients(const cpu::Dot16Weights& block, float score_scale, float scale) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = hn::Lanes(d);
  for (int64_t i = 0; i < block.rows; ++i) {
    const int64_t at = i * cpu::kDot16TileKeys;
    const int64_t seen = std::min(block.seen + i * block.seen_more, block.keys);
    const auto lse = hn::Set(d, block.lse[i]), delta = hn::Set(d, block.delta[i]);
    for (int64_t j = 0; j < block.keys; j += lanes) {
      const auto sees = hn::FirstN(d, std::clamp<int64_t>(seen - j, 0, lanes));
      const auto s = hn::Mul(hn::Load(d, block.scores + at + j), hn::Set(d, score_scale));
      const auto p = exp2_f32(d, hn::Sub(s, lse));
      const auto grad = hn::Mul(p, hn::Sub(hn::Load(d, block.dp + at + j), delta));
      const auto ds = hn::Mul(grad, hn::Set(d, scale));
      store_floats(hn::IfThenElseZero(sees, p), d, block.p + at + j);
      store_floats(hn::IfThenElseZero(sees, ds), d, block.ds + at + j);
    }
  }
}

float dot16_delta(const Bf16* dout, const Bf16* out, int64_t head_dim) {
  Lanes sum = set16(0.0f);
  for_each16(head_dim, [&](int64_t x, auto io)
                           HWY_ATTR { sum = mul_add(io.load(dout + x), io.load(out + x), sum); });
  return sum16(sum);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(dot16_weigh_gradients);
HWY_EXPORT(dot16_delta);

namespace {

/// Rows [begin, end) of a segment.
struct Rows {
  int64_t segment = 0;
  int64_t begin = 0, end = 0;
};

/// Gradients of keys and values, in rows that are padded_head_dim apart.
struct KeySums {
  float* dk = nullptr;
  float* dv = nullptr;
};

/// One thread's memory. `chain` is over the segment of queries at hand, `sum` over
/// those before it: of a tree's keys, or of a block of keys.
struct Work {
  Dot16Weights block;
  float* dq = nullptr;  ///< [kDot16Rows][padded_head_dim]
  KeySums chain, sum;
  Array<int64_t> path;  ///< of the segment of queries, from the root
};

/// A backward in the making.
class Backward {
 public:
  Backward(const Context& ctx, const AttentionBackward& op)
      : ctx_(ctx),
        shape_(op.plan.shape),
        schedule_(*op.plan.cpu),
        segments_(host(op.plan.segments)),
        lse_(op.lse),
        scale_(op.scale),
        group_(shape_.heads / shape_.kv_heads),
        ld_(padded_head_dim(shape_.head_dim)),
        dq_(queries<Bf16>(op.dq)),
        dk_(keys<Bf16>(op.dk)),
        dv_(keys<Bf16>(op.dv)),
        dout_(queries<const Bf16>(op.dout)),
        out_(queries<const Bf16>(op.out)),
        q_(queries<const Bf16>(op.q)),
        k_(keys<const Bf16>(op.k)),
        v_(keys<const Bf16>(op.v)) {}

  void run() {
    const Trees& trees = schedule_.trees;
    int64_t items = trees.count * shape_.kv_heads;
    Array<int64_t> item_end;  // [segment], of a kv head: blocks of keys, then of rows
    if (!schedule_.whole) {
      items = 0;
      for (const AttentionSegment& s : segments_)
        item_end.push_back(items +=
                           ceil_div(s.rows, kDot16TileKeys) + ceil_div(s.rows, kDot16Rows));
      items *= shape_.kv_heads;
    }
    const int64_t keys = schedule_.whole ? trees.max_tiles * kKvBlock : kDot16TileKeys;
    ScratchScope memory;
    Array<Work> work(std::min<int64_t>(std::max(ctx_.threads, 1), items));
    for (Work& w : work) w = make_work(keys, memory);
    parallel_slots(ctx_, work.size(), items, [&](int64_t slot, int64_t item) {
      const int64_t kv_head = item % shape_.kv_heads, index = item / shape_.kv_heads;
      if (schedule_.whole) {
        walk_tree(index, kv_head, work[slot]);
        return;
      }
      const int64_t s =
          std::upper_bound(item_end.begin(), item_end.end(), index) - item_end.begin();
      const int64_t part = index - (s == 0 ? 0 : item_end[s - 1]);
      const int64_t key_blocks = ceil_div(segments_[s].rows, kDot16TileKeys);
      if (part < key_blocks) {
        key_item(rows_of(s, part * kDot16TileKeys, kDot16TileKeys), kv_head, work[slot]);
      } else {
        query_item(rows_of(s, (part - key_blocks) * kDot16Rows, kDot16Rows), kv_head, work[slot]);
      }
    });
  }

 private:
  template <class T>
  Heads<T> queries(const auto& m) const {
    return heads_of(m.template as<T>(), shape_.heads, shape_.head_dim);
  }
  template <class T>
  Heads<T> keys(const auto& m) const {
    return heads_of(m.template as<T>(), shape_.kv_heads, shape_.head_dim);
  }

  Work make_work(int64_t keys, ScratchScope& memory) const {
    Work work;
    constexpr int64_t kWeights = kDot16Rows * kDot16TileKeys;
    for (float** weights : {&work.block.scores, &work.block.dp}) {
      *weights = memory.alloc<float>(kWeights);
      // A vector of weights may reach beyond a block's keys.
      std::fill_n(*weights, kWeights, 0.0f);
    }
    work.block.p = memory.alloc<Bf16>(kWeights);
    work.block.ds = memory.alloc<Bf16>(kWeights);
    work.dq = memory.alloc<float>(kDot16Rows * ld_);
    for (KeySums* sums : {&work.chain, &work.sum}) {
      sums->dk = memory.alloc<float>(keys * ld_);
      sums->dv = memory.alloc<float>(keys * ld_);
    }
    return work;
  }

  /// At most `count` rows of a segment.
  Rows rows_of(int64_t segment, int64_t begin, int64_t count) const {
    return {segment, begin, std::min(begin + count, segments_[segment].rows)};
  }
  int64_t token(const Rows& rows) const { return segments_[rows.segment].row_begin + rows.begin; }

  /// Calls body(rows) for the segment's rows from `begin` on, cut into blocks.
  template <class Body>
  void for_blocks(int64_t segment, int64_t begin, int64_t size, Body&& body) const {
    for (; begin < segments_[segment].rows; begin += size) body(rows_of(segment, begin, size));
  }

  void set_path(int64_t segment, Work& work) const {
    work.path.clear();
    for (int64_t s = segment; s >= 0; s = segments_[s].parent) work.path.push_back(s);
    std::reverse(work.path.begin(), work.path.end());
  }

  void begin_rows(const Rows& rows, int64_t head, Work& work) const {
    Dot16Weights& block = work.block;
    block.rows = rows.end - rows.begin;
    for (int64_t i = 0; i < block.rows; ++i) {
      const int64_t t = token(rows) + i;
      block.lse[i] = cpu::row(lse_, t)[head];
      block.delta[i] =
          HWY_DYNAMIC_DISPATCH(dot16_delta)(at(dout_, t, head), at(out_, t, head), shape_.head_dim);
    }
  }

  /// One product of the block's weights, or of rows, with rows of a matrix.
  struct Operand {
    const Bf16* data;
    int64_t row, inner;
  };
  static void multiply(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b,
                       float* c, int64_t c_stride, bool accumulate) {
    dot16_product({.m = m,
                   .n = n,
                   .k = k,
                   .a = a.data,
                   .a_row = a.row,
                   .a_inner = a.inner,
                   .b = b.data,
                   .b_inner = b.inner,
                   .b_column = b.row,
                   .c = c,
                   .c_stride = c_stride,
                   .accumulate = accumulate});
  }

  /// Rows of a head, begun with begin_rows, meet keys of a segment of their path. The
  /// weights go on with dq where wanted, and with the keys' chains where there are any.
  void meet(const Rows& rows, int64_t head, Rows keys, bool dq, const KeySums& chain,
            Work& work) const {
    Dot16Weights& block = work.block;
    const bool own = rows.segment == keys.segment;
    if (own) keys.end = std::min(keys.end, rows.end);  // nobody sees those behind them
    block.keys = keys.end - keys.begin;
    if (block.keys <= 0) return;
    block.seen = own ? rows.begin + 1 - keys.begin : block.keys;
    block.seen_more = own ? 1 : 0;
    const int64_t hd = shape_.head_dim, kv_head = head / group_;
    const Bf16 *const q = at(q_, token(rows), head), *const dout = at(dout_, token(rows), head),
                      *const k = at(k_, token(keys), kv_head),
                      *const v = at(v_, token(keys), kv_head);
    multiply(block.rows, block.keys, hd, {q, q_.stride, 1}, {k, k_.stride, 1}, block.scores,
             kDot16TileKeys, false);
    multiply(block.rows, block.keys, hd, {dout, dout_.stride, 1}, {v, v_.stride, 1}, block.dp,
             kDot16TileKeys, false);
    HWY_DYNAMIC_DISPATCH(dot16_weigh_gradients)(block, dot16_score_scale(scale_), scale_);
    if (dq) {
      multiply(block.rows, hd, block.keys, {block.ds, kDot16TileKeys, 1}, {k, 1, k_.stride},
               work.dq, ld_, true);
    }
    if (chain.dk == nullptr) return;
    multiply(block.keys, hd, block.rows, {block.ds, 1, kDot16TileKeys}, {q, 1, q_.stride}, chain.dk,
             ld_, true);
    multiply(block.keys, hd, block.rows, {block.p, 1, kDot16TileKeys}, {dout, 1, dout_.stride},
             chain.dv, ld_, true);
  }

  void begin_dq(Work& work) const { std::fill_n(work.dq, work.block.rows * ld_, 0.0f); }
  void store_dq(const Rows& rows, int64_t head, const Work& work) const {
    for (int64_t i = 0; i < work.block.rows; ++i)
      store(work.dq + i * ld_, at(dq_, token(rows) + i, head));
  }
  void store(const float* from, Bf16* to) const {
    for (int64_t x = 0; x < shape_.head_dim; ++x) to[x] = to_bf16(from[x]);
  }

  /// `sums` of the key rows from `row` on.
  KeySums from(const KeySums& sums, int64_t row) const {
    return {sums.dk + row * ld_, sums.dv + row * ld_};
  }
  void begin_chain(const KeySums& chain, int64_t keys) const {
    std::fill_n(chain.dk, keys * ld_, 0.0f);
    std::fill_n(chain.dv, keys * ld_, 0.0f);
  }
  /// A finished chain joins the sum, or is its beginning.
  void join(const KeySums& chain, int64_t keys, bool is_first, const KeySums& sum) const {
    const auto add = [&](const float* x, float* to) {
      for (int64_t i = 0; i < keys * ld_; ++i) to[i] = is_first ? x[i] : to[i] + x[i];
    };
    add(chain.dk, sum.dk);
    add(chain.dv, sum.dv);
  }
  void store_keys(const Rows& keys, int64_t kv_head, const KeySums& sum) const {
    for (int64_t j = 0; j < keys.end - keys.begin; ++j) {
      store(sum.dk + j * ld_, at(dk_, token(keys) + j, kv_head));
      store(sum.dv + j * ld_, at(dv_, token(keys) + j, kv_head));
    }
  }

  /// All of a tree's gradients of one kv head.
  void walk_tree(int64_t tree, int64_t kv_head, Work& work) const {
    const Trees& trees = schedule_.trees;
    const auto place = [&](const KeySums& sums, int64_t s, int64_t row) {
      return from(sums, trees.first_tile[s] * kKvBlock + row);
    };
    for (const int32_t s : trees.members(tree)) {
      set_path(s, work);
      for (const int64_t source : work.path)
        begin_chain(place(work.chain, source, 0), segments_[source].rows);
      for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
        for_blocks(s, 0, kDot16Rows, [&](const Rows& rows) {
          begin_rows(rows, head, work);
          begin_dq(work);
          for (const int64_t source : work.path) {
            for_blocks(source, 0, kDot16TileKeys, [&](const Rows& keys) {
              meet(rows, head, keys, true, place(work.chain, source, keys.begin), work);
            });
          }
          store_dq(rows, head, work);
        });
      }
      for (const int64_t source : work.path) {
        join(place(work.chain, source, 0), segments_[source].rows, source == s,
             place(work.sum, source, 0));
      }
    }
    for (const int32_t s : trees.members(tree))
      store_keys(rows_of(s, 0, segments_[s].rows), kv_head, place(work.sum, s, 0));
  }

  /// dq of a block of rows, for the heads of a group.
  void query_item(const Rows& rows, int64_t kv_head, Work& work) const {
    set_path(rows.segment, work);
    for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
      begin_rows(rows, head, work);
      begin_dq(work);
      for (const int64_t source : work.path) {
        for_blocks(source, 0, kDot16TileKeys,
                   [&](const Rows& keys) { meet(rows, head, keys, true, {}, work); });
      }
      store_dq(rows, head, work);
    }
  }

  /// dk and dv of a block of keys, of all segments that see it.
  void key_item(const Rows& keys, int64_t kv_head, Work& work) const {
    const Trees& trees = schedule_.trees;
    const int64_t count = keys.end - keys.begin;
    for (const int32_t reader : trees.members(trees.of_segment[keys.segment])) {
      if (!descends(segments_, reader, keys.segment)) continue;
      const bool own = reader == keys.segment;
      begin_chain(work.chain, count);
      for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
        // Rows before the keys do not see them.
        for_blocks(reader, own ? keys.begin : 0, kDot16Rows, [&](const Rows& rows) {
          begin_rows(rows, head, work);
          meet(rows, head, keys, false, work.chain, work);
        });
      }
      join(work.chain, count, own, work.sum);
    }
    store_keys(keys, kv_head, work.sum);
  }

  const Context& ctx_;
  const AttentionShape& shape_;
  const BackwardSchedule& schedule_;
  Span<const AttentionSegment> segments_;
  Mat<const float> lse_;
  float scale_;
  int64_t group_, ld_;  // ld_: of rows of floats
  Heads<Bf16> dq_, dk_, dv_;
  Heads<const Bf16> dout_, out_, q_, k_, v_;
};
static_assert(kDot16TileKeys % kDot16Rows == 0 && kDot16Rows % kDot16 == 0);

}  // namespace

void dot16_attention_backward(const Context& ctx, const AttentionBackward& op) {
  Backward(ctx, op).run();
}

}  // namespace orrery::kernels::cpu
#endif
