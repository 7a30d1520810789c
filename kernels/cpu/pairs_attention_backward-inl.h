// The backward of attention in bf16 for one SIMD target and one engine of
// kernels/cpu/pairs-inl.h: a block of up to 64 queries, in halves of 32, against the
// key tiles of its path. What holds, and gives the bits of kernels/attention.h:
//   1. The path is walked from the root to the block's segment, tiles rising, a few at
//      a time: their scores and dp in one flushed call, then p and ds, then what enters
//      dq, dk and dv in another.
//   2. A half is a block of dk's and dv's sums, and what is left out is left out for
//      whole halves: those of which no query sees a key of the tile. Queries rise with
//      their rows, so these are the first ones of a tile, and the tiles that a half
//      sees are the first ones of its segment.
//   3. p and ds are 0 for keys that a query does not see, for lanes beyond the tile's
//      keys and for queries beyond the block's; rows of keys, queries and dout are 0
//      there.
//   4. dk and dv are summed transposed: columns of q and dout times weights whose
//      queries are paired, which is how the weights lie when two rows of them are
//      rounded into the halves of words. A product's factors may change sides.
#include "kernels/cpu/attention_backward-inl.h"
#include "kernels/cpu/flush.h"
#include "kernels/cpu/pairs-inl.h"
#include "kernels/cpu/pairs_attention_backward.h"
#include "kernels/cpu/pairs_engines-inl.h"

#if defined(ORRERY_KERNELS_CPU_PAIRS_ATTENTION_BACKWARD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef ORRERY_KERNELS_CPU_PAIRS_ATTENTION_BACKWARD_INL_H_
#undef ORRERY_KERNELS_CPU_PAIRS_ATTENTION_BACKWARD_INL_H_
#else
#define ORRERY_KERNELS_CPU_PAIRS_ATTENTION_BACKWARD_INL_H_
#endif

#include <algorithm>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace attention {

inline constexpr int64_t kHalf = kPairsBlock;
inline constexpr int64_t kPairsQueries = kPairsBackwardQueries;
inline constexpr int64_t kMostHalves = kPairsQueries / kHalf;
inline constexpr int64_t kMostTiles = kPairsBackwardTiles;
static_assert(kTile == kPairsBlock && kPairsQueries % kHalf == 0);

/// Products of one flushed call.
template <class Left>
class Products {
 public:
  pairs::Multiply<Left>& add() { return products_[count_++] = {}; }
  const pairs::Multiply<Left>* begin() const { return products_; }
  const pairs::Multiply<Left>* end() const { return products_ + count_; }

 private:
  int64_t count_ = 0;
  pairs::Multiply<Left> products_[2 * kMostTiles + kMostHalves];
};

template <class Engine>
HWY_NOINLINE void multiply_all(const Products<typename Engine::Left>& products) {
  for (const auto& product : products) Engine::multiply(product);
}
template <class Engine>
HWY_NOINLINE void multiply_flushed(const Products<typename Engine::Left>& products) {
  const FlushScope flush;
  multiply_all<Engine>(products);
}

/// The nearest bf16 values, ties to even, as floats' bits; NaN stays NaN.
HWY_INLINE pairs::VU rounded_bits(V value) {
  const pairs::U d;
  const pairs::VU bits = hn::BitCast(d, value);
  const pairs::VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1));
  const pairs::VU rounded = hn::Add(bits, hn::Add(odd, hn::Set(d, 0x7FFF)));
  const pairs::VU either = hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(value)),
                                          hn::Or(bits, hn::Set(d, 0x400000)), rounded);
  return hn::And(either, hn::Set(d, 0xFFFF0000u));
}

/// A vector of rounded_bits, as an engine's left operand.
HWY_INLINE void store_left(pairs::VU bits, float* to) {
  hn::StoreU(hn::BitCast(D(), bits), D(), to);
}
HWY_INLINE void store_left(pairs::VU bits, Bf16* to) {
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(bits)), d16, reinterpret_cast<uint16_t*>(to));
}

/// `count` floats that hold bf16 values, as a left operand. REQUIRES: whole vectors.
template <class Left>
HWY_INLINE void copy_left(const float* HWY_RESTRICT from, int64_t count, Left* HWY_RESTRICT to) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_left(hn::BitCast(pairs::U(), hn::LoadU(D(), from + i)), to + i);
}

/// A block of queries against the tiles of its path.
template <class Engine>
class PairsQueries {
 public:
  using Left = typename Engine::Left;

  PairsQueries(const PairsBackwardArgs& op, const BackwardBlock& work,
               const PairsAttentionPack& pack, const PairsAttentionScratch& scratch)
      : op_(op),
        work_(work),
        pack_(pack),
        scratch_(scratch),
        segment_(op.segments[work.segment]),
        group_(op.q.heads / op.k.heads),
        head_dim_(op.q.head_dim),
        padded_(padded_head_dim(head_dim_)),
        blocks_(pairs_head_dim(head_dim_) / kPairsBlock),
        count_(work.end - work.begin),
        halves_((count_ + kHalf - 1) / kHalf) {}

  void run() {
    read_rows();
    lay_out(op_.q, left(scratch_.q_rows), left(scratch_.q_columns));
    lay_out(op_.dout, left(scratch_.dout_rows), left(scratch_.dout_columns));
    std::fill_n(scratch_.dq, halves_ * kHalf * padded_, 0.0f);
    int64_t depth = 0;
    for (int64_t s = work_.segment; s >= 0; s = op_.segments[s].parent) scratch_.path[depth++] = s;
    while (depth-- > 0) walk_segment(scratch_.path[depth]);
    if (!work_.queries) return;
    for (int64_t i = 0; i < count_; ++i)
      pairs::round(scratch_.dq + i * padded_, head_dim_, query(op_.dq, i));
  }

 private:
  static Left* left(void* memory) { return static_cast<Left*>(memory); }
  template <class T>
  T* query(Heads<T> m, int64_t i) const {
    const int64_t f = work_.begin + i;
    return cpu::at(m, segment_.row_begin + f / group_, work_.kv_head * group_ + f % group_);
  }

  void read_rows() {
    for (int64_t i = 0; i < halves_ * kHalf; ++i) {
      row_[i] = (work_.begin + std::min(i, count_ - 1)) / group_;
      lse_[i] = delta_[i] = 0.0f;
      if (i >= count_) continue;
      const int64_t f = work_.begin + i;
      lse_[i] =
          cpu::row(op_.lse, segment_.row_begin + row_[i])[work_.kv_head * group_ + f % group_];
      pairs::expand(query(op_.dout, i), head_dim_, scratch_.row);
      pairs::expand(query(op_.out, i), head_dim_, scratch_.row + head_dim_);
      delta_[i] = lanes_dot(scratch_.row, scratch_.row + head_dim_, head_dim_);
    }
  }

  /// The block's rows of m, and its columns by halves.
  void lay_out(Heads<const Bf16> m, Left* rows, Left* columns) const {
    alignas(64) float block[kHalf * kPairsBlock], turned[kHalf * kPairsBlock];
    const float* from[kHalf];
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t first = b * kPairsBlock;
      const int64_t width = std::min(kPairsBlock, head_dim_ - first);
      const int64_t turned_width = std::min(kPairsBlock, padded_ - first);
      for (int64_t half = 0; half < halves_; ++half) {
        for (int64_t i = 0; i < kHalf; ++i) {
          float* const to = block + i * kPairsBlock;
          from[i] = to;
          const int64_t n = half * kHalf + i < count_ ? width : 0;
          if (n > 0) pairs::expand(query(m, half * kHalf + i) + first, n, to);
          std::fill(to + n, to + kPairsBlock, 0.0f);
        }
        transpose_rows(from, kHalf, turned_width, turned, kHalf);
        Left* const to = rows + (b * kPairsQueries + half * kHalf) * kPairsBlock;
        Left* const to_columns = columns + (half * padded_ + first) * kHalf;
        copy_left(block, kHalf * kPairsBlock, to);
        copy_left(turned, turned_width * kHalf, to_columns);
      }
    }
  }

  /// Tiles of one segment that are taken together.
  struct Tiles {
    int64_t first = 0;  ///< within the pack
    int64_t count = 0;
    KeyTile tile[kMostTiles];
    int64_t first_half[kMostTiles] = {};  ///< the first half that sees a key
  };

  void walk_segment(int64_t source) {
    const bool own = source == work_.segment;
    const int64_t rows = own ? row_[count_ - 1] + 1 : op_.segments[source].rows;
    const int64_t all = op_.segments[source].rows, base = work_.first_tile[source];
    const int64_t begin = std::max<int64_t>(work_.tile_begin - base, 0);
    const int64_t end = std::min((rows + kTile - 1) / kTile, work_.tile_end - base);
    for (int64_t t = begin; t < end; t += kMostTiles) {
      Tiles tiles;
      tiles.first = base + t;
      tiles.count = std::min(end - t, kMostTiles);
      for (int64_t n = 0; n < tiles.count; ++n) {
        KeyTile& tile = tiles.tile[n];
        tile.own = own;
        tile.first_row = (t + n) * kTile;
        tile.keys = std::min<int64_t>(kTile, all - tile.first_row);
        // The last query of a half sees the most.
        while (tile.visible(row_[tiles.first_half[n] * kHalf + kHalf - 1]) == 0)
          ++tiles.first_half[n];
      }
      score(tiles);
      for (int64_t n = 0; n < tiles.count; ++n) weigh(tiles, n);
      add_gradients(tiles);
    }
  }

  /// Rows of products from the given half on.
  int64_t rows_from(int64_t half) const {
    constexpr int64_t kStep = Engine::kRowStep;
    return (count_ - half * kHalf + kStep - 1) / kStep * kStep;
  }
  static int64_t weights_at(int64_t n, int64_t half) {
    return (n * kPairsQueries + half * kHalf) * kTile;
  }

  void score(const Tiles& tiles) const {
    Products<Left> products;
    const int64_t tile_size = blocks_ * kPairsBlock * kTile;
    for (int64_t n = 0; n < tiles.count; ++n) {
      const int64_t half = tiles.first_half[n];
      const auto add = [&](float* c, void* rows, const Bf16* pack) {
        auto& p = products.add();
        p.c = c + weights_at(n, half), p.c_stride = kTile;
        p.a = left(rows) + half * kHalf * kPairsBlock;
        p.a_block_stride = kPairsQueries * kPairsBlock;
        p.b = pack + (tiles.first + n) * tile_size, p.b_pair_stride = 2 * kTile;
        p.blocks = blocks_, p.rows = rows_from(half), p.cols = kTile;
      };
      add(scratch_.scores, scratch_.q_rows, pack_.k_pairs);
      add(scratch_.dp, scratch_.dout_rows, pack_.v_pairs);
    }
    multiply_flushed<Engine>(products);
  }

  struct Weights {
    pairs::VU p, ds;  ///< rounded_bits
  };
  /// kLanes keys from `key` on of query i, which sees `seen` keys of the tile.
  HWY_INLINE Weights weights(int64_t i, int64_t at, int64_t key, int64_t seen) const {
    const D d;
    const V scale = hn::Set(d, op_.scale);
    const V s = hn::Mul(hn::LoadU(d, scratch_.scores + at), scale);
    const V dp = hn::LoadU(d, scratch_.dp + at);
    V p = exp_f32(d, hn::Sub(s, hn::Set(d, lse_[i])));
    V ds = hn::Mul(hn::Mul(p, hn::Sub(dp, hn::Set(d, delta_[i]))), scale);
    if (seen < kTile) {
      const auto mask = hn::FirstN(d, std::clamp<int64_t>(seen - key, 0, kLanes));
      p = hn::IfThenElseZero(mask, p);
      ds = hn::IfThenElseZero(mask, ds);
    }
    return {rounded_bits(p), rounded_bits(ds)};
  }

  /// p and ds of a tile.
  HWY_NOINLINE void weigh(const Tiles& tiles, int64_t n) const {
    const pairs::U du;
    const KeyTile& tile = tiles.tile[n];
    Left* const ds_rows = left(scratch_.ds_rows);
    auto* const p_words = reinterpret_cast<uint32_t*>(scratch_.p_pairs);
    auto* const ds_words = reinterpret_cast<uint32_t*>(scratch_.ds_pairs);
    for (int64_t i = tiles.first_half[n] * kHalf; i < halves_ * kHalf; i += 2) {
      const int64_t low_seen = i < count_ ? tile.visible(row_[i]) : 0;
      const int64_t high_seen = i + 1 < count_ ? tile.visible(row_[i + 1]) : 0;
      const int64_t at = weights_at(n, 0) + i * kTile;
      if (high_seen == 0 && low_seen == 0) {
        std::fill_n(ds_rows + at, 2 * kTile, Left{});
        std::fill_n(p_words + at / 2, kTile, 0);
        std::fill_n(ds_words + at / 2, kTile, 0);
        continue;
      }
#pragma GCC unroll 8
      for (int v = 0; v < kTileVecs; ++v) {
        const int64_t key = v * kLanes;
        const Weights low = weights(i, at + key, key, low_seen);
        const Weights high = weights(i + 1, at + kTile + key, key, high_seen);
        store_left(low.ds, ds_rows + at + key);
        store_left(high.ds, ds_rows + at + kTile + key);
        hn::StoreU(hn::Or(hn::ShiftRight<16>(low.p), high.p), du, p_words + at / 2 + key);
        hn::StoreU(hn::Or(hn::ShiftRight<16>(low.ds), high.ds), du, ds_words + at / 2 + key);
      }
    }
  }

  void add_gradients(const Tiles& tiles) const {
    Products<Left> products;
    if (work_.queries) add_query_gradients(tiles, products);
    if (work_.keys) {
      for (int64_t n = 0; n < tiles.count; ++n) {
        add_key_gradients(tiles, n, scratch_.q_columns, scratch_.ds_pairs, pack_.dk, products);
        add_key_gradients(tiles, n, scratch_.dout_columns, scratch_.p_pairs, pack_.dv, products);
      }
    }
    multiply_flushed<Engine>(products);
  }

  void add_query_gradients(const Tiles& tiles, Products<Left>& products) const {
    for (int64_t half = 0; half < halves_; ++half) {
      int64_t seen = 0;
      while (seen < tiles.count && tiles.first_half[seen] <= half) ++seen;
      if (seen == 0) continue;
      auto& p = products.add();
      p.c = scratch_.dq + half * kHalf * padded_, p.c_stride = padded_, p.accumulate = true;
      p.a = left(scratch_.ds_rows) + weights_at(0, half);
      p.a_block_stride = kPairsQueries * kTile;
      p.b = pack_.k_rows + tiles.first * kTile * padded_, p.b_pair_stride = 2 * padded_;
      p.blocks = seen, p.rows = std::min(rows_from(half), kHalf), p.cols = padded_;
    }
  }

  /// dk (columns of q, weights ds) or dv (columns of dout, weights p) of a tile.
  void add_key_gradients(const Tiles& tiles, int64_t n, void* columns, const Bf16* weights,
                         float* grads, Products<Left>& products) const {
    const int64_t half = tiles.first_half[n];
    auto& p = products.add();
    p.c = grads + (tiles.first + n) * padded_ * kTile, p.c_stride = kTile, p.accumulate = true;
    p.a = left(columns) + half * padded_ * kHalf, p.a_block_stride = padded_ * kHalf;
    p.b = weights + weights_at(n, half), p.b_pair_stride = 2 * kTile;
    p.blocks = halves_ - half, p.rows = padded_, p.cols = kTile;
  }

  const PairsBackwardArgs& op_;
  const BackwardBlock& work_;
  const PairsAttentionPack& pack_;
  const PairsAttentionScratch& scratch_;
  const AttentionSegment& segment_;
  int64_t group_, head_dim_, padded_;
  int64_t blocks_;  ///< of 32 along the head dimension
  int64_t count_;   ///< queries
  int64_t halves_;  ///< blocks of 32 queries, the last one perhaps ragged
  /// Within the segment; queries beyond the last repeat its row.
  int64_t row_[kPairsQueries];
  alignas(64) float lse_[kPairsQueries], delta_[kPairsQueries];
};

}  // namespace attention
}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
