// One optimizer step over a mini-batch, on all learner ranks at once: shard gradients,
// ordered reduction, clipping, AdamW, packing of the new weights. The result depends on
// the trees and on gradient_shards: not on ranks, threads or token budget. Under
// fast_reduce it depends on the number of ranks, too.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "comm/mesh.h"
#include "core/span.h"
#include "learners/gradient.h"
#include "learners/loss_sums.h"
#include "learners/objective.h"
#include "learners/optimizer.h"
#include "learners/ordered_reducer.h"

namespace orrery::learners {

struct LearnerConfig {
  int64_t gradient_shards = 8;
  int64_t max_token_len = 4096;  ///< rows of one forward and backward, or one run's (pack())
  bool fast_reduce = false;      ///< plain all-reduce instead of the ordered one
  /// Of the learner ranks. Along dp they share the gradient shards and the optimizer's
  /// slices.
  comm::Mesh mesh = {};
};

struct UpdateResult {
  LossSums sums;  ///< over the whole mini-batch, all ranks
  double grad_norm = 0;
  /// A token's loss (sums.not_finite, and grad_norm is NaN) or the gradient was not
  /// finite: weights unchanged.
  bool skipped = false;
  /// sums.mismatches under objective.verify_logprobs: weights and optimizer unchanged,
  /// the rest of the result not filled.
  bool refused = false;
  double lr = 0;
  int64_t rows = 0;  ///< rows computed by all ranks
  /// Per learner rank: prompt and response tokens of the samples it had, where a prompt
  /// counts once for each of its samples.
  std::vector<double> rank_tokens;
  /// Forward and backward, all ranks; causal attention, recomputation not counted.
  double model_flops = 0;
  double reference_seconds = 0, gradient_seconds = 0, optimizer_seconds = 0, pack_seconds = 0;
  double reduce_seconds = 0;  ///< the part of the reduction that backward did not hide
};

/// One line on why `result` was skipped: the first token that is not finite and how
/// many there are, or the norm.
std::string skipped_update_text(const UpdateResult& result);

class Learner {
 public:
  /// `model`, of a trainable module, is updated in place and packed; `comm` connects
  /// the learner ranks, those of config.mesh. Both must outlive the learner. Collective
  /// where the mesh has more axes than dp.
  Learner(const Context& ctx, models::Transformer& model, comm::Communicator& comm,
          const LearnerConfig& config);

  /// Frozen model for the KL loss, of a module that is not trainable; null: none. It
  /// must outlive the learner.
  void set_reference(const models::Transformer* reference);

  /// Called whenever a part of an update is done, for a watchdog: after each
  /// micro-batch, and never once the optimizer has begun. What it throws ends the
  /// update with weights and moments as they were, but only where there is one learner:
  /// others would wait for it.
  void set_progress(std::function<void()> progress) { progress_ = std::move(progress); }

  /// Collective; every rank passes the same trees, in the same order.
  UpdateResult update(std::span<Tree> trees, const Objective& objective,
                      kernels::AdamWParams params, double clip_grad);

  /// Log-probs of the trees' loss tokens under the current weights: one vector per
  /// leaf, in tree and leaf order, with one entry per response token (0 where masked).
  /// Collective; every rank passes the same trees and gets all values, whichever ranks
  /// computed them.
  std::vector<std::vector<float>> logprobs(std::span<Tree> trees, float temperature);

  ShardedAdamW& optimizer() { return optimizer_; }
  /// Between updates: gives back the memory of gradients and temporaries, which the
  /// next update takes again.
  void release_memory();
  /// Gradients and temporaries lie in `memory` from now on, and nowhere else: an Error
  /// when an update needs more. It must outlive the learner's use.
  void use_memory(Vec<float> memory);
  /// use_memory()'s, or the gradients'. Free for other use between updates; every
  /// update overwrites it.
  Vec<float> idle_memory();
  size_t memory_bytes() const;  ///< gradients, moments, temporaries; not what is lent

 private:
  /// Which trees are in which shard, and this rank's shards packed.
  struct ShardWork {
    std::vector<std::vector<int64_t>> assignment;  ///< indices of each shard's trees
    int64_t first = 0;                             ///< this rank's first shard
    std::vector<std::vector<MicroBatch>> batches;
    int64_t rows = 0;  ///< of all trees
  };
  ShardWork assign_to_shards(std::span<Tree> trees) const;
  /// Reserve what logprobs() and update() will take.
  void reserve_logprobs(Span<const std::vector<MicroBatch>> shards);
  void reserve_update(Span<const std::vector<MicroBatch>> shards, bool reference);
  void compute_reference(Span<const std::vector<MicroBatch>> batches, const Objective& objective,
                         UpdateResult& result);
  /// Clips and AdamW, and packs the new weights; or skips.
  void take_step(const kernels::AdamWParams& params, double clip_grad, UpdateResult& result);

  Context ctx_;
  models::Transformer& model_;
  const models::Transformer* reference_ = nullptr;
  std::function<void()> progress_ = [] {};
  LearnerConfig config_;
  comm::AxisGroup dp_;
  ShardedAdamW optimizer_;
  ShardTree shard_tree_;
  Arena arena_;
  Vec<float> lent_;  // use_memory()'s
};

}  // namespace orrery::learners
