// Gradient of one shard: its micro-batches forward and backward, one after the other,
// into one buffer, which the first of them overwrites.
#pragma once

#include <optional>
#include <span>

#include "core/buffer.h"
#include "core/extent.h"
#include "learners/batch.h"
#include "learners/loss_sums.h"
#include "learners/objective.h"
#include "models/transformer.h"

namespace orrery::learners {

/// One shard's way through forward and backward, at the pace of its caller:
///   while (pass.forward()) {
///     pass.head_backward(objective, sums);
///     while (const auto final_from = pass.backward_layer()) ...
///   }
///   pass.embedding_backward();
/// The gradient is written to `gradients` (flat, in the layout of model.table()), every
/// element of it, whatever was there before: the first batch writes, the others add.
/// It does not depend on how the shard's runs are cut into batches, bit for bit: every
/// parameter's gradient is one sum over the shard's rows in order, from 0, a chain or,
/// of bf16 products, blocks within runs. With tied weights the head's part comes first,
/// then, after all batches, the embedding's, so that the two sums do not interleave.
class ShardPass {
 public:
  /// `gradients` may be a window if there is one batch at most. Temporaries come from
  /// `arena`, and stay there until the pass is gone. All arguments must outlive it.
  ShardPass(const Context& ctx, const models::Transformer& model,
            std::span<const MicroBatch> batches, const FlatView& gradients, Arena& arena);

  /// Takes from `arena`, which measures, what a pass over the batches takes, and
  /// releases it.
  static void measure(const models::Transformer& model, std::span<const MicroBatch> batches,
                      Arena& arena);

  /// Forward of the next micro-batch; false: there is none.
  bool forward();
  /// The loss of the batch's rows, and its gradient back through the head. Adds to
  /// `sums`, in row order.
  void head_backward(const Objective& objective, LossSums& sums);
  /// One layer's backward, from the last layer to the first; the final norm is the
  /// first step. Gives the element from which on the shard's gradient is final: a bound
  /// of model.table().regions() in the last batch, the whole size before it. Nothing:
  /// the batch is done.
  std::optional<int64_t> backward_layer();
  /// After the last batch: the embedding's gradient, which makes all of the shard's
  /// final. That of a shard without batches is zero.
  void embedding_backward();

 private:
  bool is_first_batch() const { return batch_ == &batches_.front(); }
  bool is_last_batch() const { return batch_ == &batches_.back(); }
  void zero(Vec<float> part) const;

  const Context& ctx_;
  const models::Transformer& model_;
  std::span<const MicroBatch> batches_;
  const FlatView gradients_;
  Arena& arena_;
  ArenaScope scope_;
  Mat<float> dembedding_;  // of all batches' rows

  const MicroBatch* batch_ = nullptr;
  int64_t row_ = 0;  // of dembedding_, the batch's first one
  std::optional<ArenaScope> batch_scope_;
  ActMat hidden_;
  Mat<float> dhidden_;
  models::BatchPlan plan_;
  models::Activations activations_;
  std::optional<models::TransformerBackward> backward_;
};

/// Fills leaf.ref_logprobs of the batches' loss rows from a frozen model.
void reference_logprobs(const Context& ctx, const models::Transformer& reference, float temperature,
                        std::span<const MicroBatch> batches, Arena& arena);

/// Takes from `arena`, which measures, what batch_logprobs takes for the batch, and
/// releases it.
void measure_logprobs(const models::Transformer& model, const MicroBatch& batch, Arena& arena);

/// Log-probs and entropies of a batch's loss rows through the training forward. Spans
/// have one entry a loss row; entropies may be empty.
void batch_logprobs(const Context& ctx, const models::Transformer& model, float temperature,
                    const MicroBatch& batch, std::span<float> logprobs, std::span<float> entropies,
                    Arena& arena);

}  // namespace orrery::learners
