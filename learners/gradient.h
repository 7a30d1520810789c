// Gradient of one shard: its micro-batches forward and backward, one after the other,
// into one buffer.
#pragma once

#include <functional>
#include <optional>
#include <span>

#include "core/buffer.h"
#include "core/extent.h"
#include "learners/batch.h"
#include "learners/loss.h"
#include "models/transformer.h"

namespace orrery::learners {

/// What is learned from a batch: imitation of the tokens, or the clipped policy
/// gradient.
struct Objective {
  bool sft = false;  ///< weight * -logp; the rest is not used
  PolicyLossParams policy;
  float temperature = 1.0f;  ///< of the rollout: the policy is softmax(logits / temperature)
  /// Learner::update refuses a batch in which an exact leaf's log-prob is not
  /// recomputed to the same bits.
  bool verify_logprobs = false;
};

/// Adds the gradient of the objective over the batches to `gradients` (flat, layout of
/// model.table()) and the loss's sums to `sums`, in row order. Independent of how the
/// same trees are cut into batches, bit for bit: every parameter's gradient is a chain
/// over the shard's rows. With tied weights the head's part comes first, then, after
/// all batches, the embedding's, so that the two chains do not interleave. `final_from`
/// (may be empty) is told while the last batch's backward goes on, region by region of
/// model.table(); a single batch may therefore be given a window. `progress` is called
/// after each batch; what it throws ends this.
void shard_gradient(
    const Context& ctx, const models::Transformer& model, const Objective& objective,
    std::span<const MicroBatch> batches, const FlatView& gradients, LossSums& sums,
    const FinalFrom& final_from, Arena& arena, const std::function<void()>& progress = [] {});

/// Fills leaf.ref_logprobs of the batches' loss rows from a frozen model.
void reference_logprobs(const Context& ctx, const models::Transformer& reference, float temperature,
                        std::span<const MicroBatch> batches, Arena& arena);

/// Log-probs and entropies of a batch's loss rows through the training forward. Spans
/// have one entry a loss row.
void batch_logprobs(const Context& ctx, const models::Transformer& model, float temperature,
                    const MicroBatch& batch, std::span<float> logprobs, std::span<float> entropies,
                    Arena& arena);

}  // namespace orrery::learners
