// Batches as callers describe them, in host memory, and as a forward reads them:
// checked and uploaded once, so that the ops of the layers check shapes alone.
//
// Shapes: T rows (tokens of a batch), R rows whose logits are wanted.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/attention.h"
#include "models/kv_cache.h"

namespace orrery::models {

class Transformer;

/// Rows of a batch for prefill and decode: any mix of segments, each some consecutive
/// tokens of one sequence.
struct ForwardBatch {
  Span<const int32_t> tokens;               ///< [T]
  Span<const int32_t> positions;            ///< [T]
  Span<const kernels::KvSegment> segments;  ///< cover the rows in order
  Span<const int32_t> output_rows;          ///< [R], each < T
};

/// A packed training batch: trees of segments (a group's prompt is one segment, its
/// responses are children).
struct TrainBatch {
  Span<const int32_t> tokens;                      ///< [T]
  Span<const int32_t> positions;                   ///< [T]
  Span<const kernels::AttentionSegment> segments;  ///< parents before children, rows in order
  /// [R], may repeat: a prompt's last row predicts every response's first token.
  Span<const int32_t> output_rows;
  /// Where the runs of the T rows end (docs/numerics.md), rising, the last one at T.
  /// Empty: all rows are one run. They matter to bf16 gradients alone.
  Span<const int64_t> run_ends{};
  Span<const int64_t> output_run_ends{};  ///< likewise of the R output rows
};

/// A batch on the device. Its memory is in the arena that it was made from.
struct BatchPlan {
  Vec<const int32_t> tokens, positions;  ///< [T]
  Vec<const int32_t> output_rows;        ///< [R]
  kernels::AttentionPlan attention;
  /// Of a training batch: what a child copies of its ancestors' blocks, in each layer
  /// after the keys and values are written; and the trees for the backward.
  kernels::CopyPlan copies;
  kernels::AttentionBackwardPlan backward;
  /// Of a training batch, in host memory: the runs that bf16 products have; and those
  /// of the other sums over rows, which have runs in the class dot16-rz25 alone.
  Array<int64_t> run_ends, sum_runs, output_sum_runs;

  int64_t rows() const { return tokens.size; }  ///< T
};

/// Error for tokens outside the model's vocabulary, positions outside its context,
/// segments that the batch or the cache does not hold, and ends of runs that do not
/// rise to the batch's.
BatchPlan plan_forward(const Context& ctx, const Transformer& model, const ForwardBatch& batch,
                       const KvCache& cache, Arena& arena);

/// As plan_forward, with blocks of its own for the keys and values of one layer: every
/// tree gets its own; a child shares its ancestors' full blocks and copies the partly
/// filled one, exactly as the engine does.
BatchPlan plan_training(const Context& ctx, const Transformer& model, const TrainBatch& batch,
                        Arena& arena);

/// Takes from `arena`, which measures, what the two functions above take, or a little
/// more. The second gives the blocks of the training batch's pool.
void measure_plan(const ForwardBatch& batch, Arena& arena);
int64_t measure_plan(const TrainBatch& batch, Arena& arena);

}  // namespace orrery::models
