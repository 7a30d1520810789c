// What attention needs to know of a batch: checked on the host and uploaded once, then
// read by the ops of every layer (kernels/attention.h, kernels/kv_pool.h), which check
// shapes alone.
#pragma once

#include <cstdint>
#include <memory>

#include "core/buffer.h"
#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

namespace cpu {
struct ForwardSchedule;
struct BackwardSchedule;
}  // namespace cpu

/// Positions of a block of keys and values, and of a tile of attention.
inline constexpr int64_t kKvBlock = 32;

/// `heads` query heads share `kv_heads` heads of keys and values evenly: query head h
/// reads kv head h / (heads / kv_heads).
struct AttentionShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

/// Consecutive positions of one sequence in a batch: rows [row_begin, row_begin + rows)
/// are its positions [position, position + rows). `blocks` is the sequence's block
/// table, which covers at least those positions.
struct KvSegment {
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t position = 0;
  Span<const int32_t> blocks;
};

/// A KvSegment as the device reads it: its block table begins at `table` of the plan's
/// tables.
struct PlannedSegment {
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t position = 0;
  int64_t table = 0;
};

/// Of a forward: where each row's keys and values are written and read.
struct AttentionPlan {
  AttentionShape shape;
  int64_t rows = 0;         ///< of the batch
  int64_t pool_blocks = 0;  ///< of the pools that it may be used with
  Vec<const PlannedSegment> segments;
  Vec<const int32_t> tables;
  double pairs = 0;  ///< of a row and a key that it sees
  int64_t keys = 0;  ///< read by the segments, where a shared one counts once for each
  /// How the CPU's kernels spread the forward over threads; null for other devices.
  std::shared_ptr<const cpu::ForwardSchedule> cpu;
};

/// `arena` holds the device's part of the plan. Error for a segment outside the batch,
/// segments that share rows, a table that is too short, a block outside a pool of
/// `pool_blocks`, and for heads that the device's kernels do not take.
AttentionPlan make_attention_plan(const Context& ctx, const AttentionShape& shape, int64_t rows,
                                  int64_t pool_blocks, Span<const KvSegment> segments,
                                  Arena& arena);

/// A run of tokens with at most one parent. Its first token stands at `position`; it
/// sees all tokens of its ancestors, then its own. A parent precedes its children in
/// the list, and position == parent.position + parent.rows (0 without a parent).
struct AttentionSegment {
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t position = 0;
  int32_t parent = -1;
};

/// Of a backward: the trees that the batch's segments form.
struct AttentionBackwardPlan {
  AttentionShape shape;
  int64_t rows = 0;  ///< of the batch
  Vec<const AttentionSegment> segments;
  double pairs = 0;  ///< of a row and a key that it sees
  /// As in AttentionPlan.
  std::shared_ptr<const cpu::BackwardSchedule> cpu;
};

/// `arena` holds the device's part of the plan. Error for a segment outside the batch,
/// segments that share rows, a parent that does not precede its child or does not end
/// where it begins, and for heads that the device's kernels do not take.
AttentionBackwardPlan make_attention_backward_plan(const Context& ctx, const AttentionShape& shape,
                                                   int64_t rows,
                                                   Span<const AttentionSegment> segments,
                                                   Arena& arena);

}  // namespace orrery::kernels
