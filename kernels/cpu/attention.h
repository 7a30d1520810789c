// The CPU side of kernels/attention.h. attention_schedule.cc cuts a plan into work
// items and spreads them over threads; attention_forward.cc and attention_backward.cc,
// in bf16 pairs_attention_forward.cc and pairs_attention_backward.cc, compute an item;
// kv_pool.cc fills the blocks of keys and values. Arguments are already checked.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "kernels/attention.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/kv_pool.h"

namespace orrery::kernels::cpu {

/// Most queries of a forward item.
inline constexpr int64_t kForwardQueries = 48;
/// Floats of queries, and of outputs, that a forward item holds.
inline constexpr int64_t kForwardScratch = kForwardQueries * 256;

/// Rows of scratch are padded to whole vectors of any width.
inline int64_t padded_head_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// Most queries (a row and a head of the group) of one forward item at this head_dim: a
/// multiple of 12, the tallest register tile.
inline int64_t forward_item_queries(int64_t head_dim) {
  return std::clamp<int64_t>(kForwardScratch / padded_head_dim(head_dim) / 12 * 12, 12,
                             kForwardQueries);
}

/// As the public ops' arguments, with their matrices cut into heads. T: the pool's
/// element type, and that of q and out.
template <class T>
struct BasicForwardArgs {
  Heads<T> out;
  Mat<float> lse;
  Heads<const T> q;
  const T* keys = nullptr;    ///< the pool's
  const T* values = nullptr;  ///< the pool's
  const int32_t* tables = nullptr;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 1.0f;
};
using ForwardArgs = BasicForwardArgs<float>;
using PairsForwardArgs = BasicForwardArgs<Bf16>;

/// Queries [begin, end) of a segment, for each kv head of a range. Query f is row
/// f / group, head kv_head * group + f % group.
struct ForwardItem {
  int64_t kv_head_begin = 0, kv_head_end = 0;
  int64_t begin = 0, end = 0;
  /// The segment whose first tiles are worth fetching into the cache meanwhile, or
  /// null.
  const PlannedSegment* next = nullptr;
  int64_t next_kv_head = 0;
};

void attention_forward_item(const ForwardArgs& op, const PlannedSegment& segment,
                            const ForwardItem& item);
void attention_forward_item(const PairsForwardArgs& op, const PlannedSegment& segment,
                            const ForwardItem& item);

/// Decoding sequences are taken together for at most so many query heads per kv head;
/// more fill a register tile by themselves.
inline constexpr int64_t kMaxPrefixGroup = 6;

/// A run of decoding segments (one row each) whose tables begin with the same `shared`
/// >= 1 blocks, of which every row sees all positions. These blocks are read once for
/// all segments. REQUIRES: the run has at most forward_item_queries queries of a kv
/// head, and a kv head at most kMaxPrefixGroup query heads.
void attention_forward_shared_prefix(const ForwardArgs& op, Span<const PlannedSegment> run,
                                     int64_t shared, int64_t kv_head);
void attention_forward_shared_prefix(const PairsForwardArgs& op, Span<const PlannedSegment> run,
                                     int64_t shared, int64_t kv_head);

template <class T>
struct BasicBackwardArgs {
  Heads<T> dq, dk, dv;
  Heads<const T> dout, out, q, k, v;
  Mat<const float> lse;
  Span<const AttentionSegment> segments;
  float scale = 1.0f;
};
using BackwardArgs = BasicBackwardArgs<float>;

/// Packed keys and values of a (tree, kv head), and the gradients being summed. Rows
/// are padded_head_dim apart.
struct AttentionPack {
  float* k_tiles = nullptr;  ///< [tile][head_dim][kKvBlock]
  float* v_tiles = nullptr;  ///< the same of v
  float* k_rows = nullptr;   ///< [tile * kKvBlock][padded]
  float* dk = nullptr;       ///< [tile * kKvBlock][padded]
  float* dv = nullptr;
};

/// One thread's memory for a block of queries.
struct AttentionScratch {
  float* q_tiles = nullptr;     ///< [kBackwardQueries * head_dim], transposed by register tile
  float* dout_tiles = nullptr;  ///< the same of dout
  float* q_rows = nullptr;      ///< [kBackwardQueries][padded]
  float* dout_rows = nullptr;
  float* dq_rows = nullptr;
  int64_t* path = nullptr;  ///< [depth]
};

/// Most queries of a block.
inline constexpr int64_t kBackwardQueries = 48;

/// A block of queries of one segment and kv head against the tiles [tile_begin,
/// tile_end) of its tree.
struct BackwardBlock {
  /// [segment]: where the segment's keys start among its tree's tiles. Each segment's
  /// rows are cut into tiles of kKvBlock on their own.
  const int64_t* first_tile = nullptr;
  int64_t segment = 0;
  int64_t kv_head = 0;
  /// Queries, as in ForwardItem; at most kBackwardQueries, or kPairsBackwardQueries.
  int64_t begin = 0, end = 0;
  int64_t tile_begin = 0, tile_end = 0;
  bool queries = true;  ///< writes dq; the tiles must then be all of the tree's
  bool keys = true;     ///< adds to the pack's dk and dv
};

void attention_backward_block(const BackwardArgs& op, const BackwardBlock& work,
                              const AttentionPack& pack, const AttentionScratch& scratch);

/// Fills the segment's tiles of the pack from k and v, and zeroes their dk and dv.
void attention_backward_pack(const BackwardArgs& op, int64_t segment, int64_t first_tile,
                             int64_t kv_head, const AttentionPack& pack);

/// Writes the sums of the segment's rows [row_begin, row_end) to dk and dv.
void attention_backward_store(const BackwardArgs& op, int64_t segment, int64_t first_tile,
                              int64_t kv_head, int64_t row_begin, int64_t row_end,
                              const AttentionPack& pack);

/// The columns of m as heads.
template <class T>
Heads<T> heads_of(Mat<T> m, int64_t heads, int64_t head_dim) {
  return {m.data, m.rows, heads, head_dim, m.stride};
}

/// What of the cut into items and runs depends on the plan alone: made once, for all
/// layers.
std::shared_ptr<const ForwardSchedule> schedule_forward(const Context& ctx,
                                                        const AttentionShape& shape,
                                                        Span<const PlannedSegment> segments,
                                                        Span<const int32_t> tables);
std::shared_ptr<const BackwardSchedule> schedule_backward(const Context& ctx,
                                                          const AttentionShape& shape,
                                                          Span<const AttentionSegment> segments);

void attention_forward(const Context& ctx, const AttentionForward& op);
void attention_backward(const Context& ctx, const AttentionBackward& op);

}  // namespace orrery::kernels::cpu
