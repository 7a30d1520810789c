// The RL stage: GRPO and its kin, synchronously. Reads as the algorithm does: generate,
// reward, advantages, update, publish.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "experiments/divergence.h"
#include "experiments/dropped_samples.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/policy_update.h"
#include "learners/learner.h"

namespace orrery::experiments {

class RlStage {
 public:
  /// `learner` is null on ranks that only act. All must outlive the stage.
  /// `steps_before`: of SFT, for the run's step number in messages; what the stage
  /// computes depends on its own steps alone.
  RlStage(Job& job, learners::Learner* learner, int64_t steps_before = 0);
  ~RlStage();
  RlStage(const RlStage&) = delete;
  RlStage& operator=(const RlStage&) = delete;

  /// Step `step` (from 0): one batch of prompts, sampled, rewarded and learned from.
  /// Collective over all ranks. Metrics are filled on learner ranks. groups of the
  /// batch are kept in last_groups() on learners. Nothing, on all ranks, when any was
  /// asked to stop while samples were generated, or the only rank before it had changed
  /// a weight: the samples are dropped, weights and moments are those of the step
  /// before.
  std::optional<Metrics> step(int64_t step);

  /// Mean reward and accuracy over held-out prompts with the current weights;
  /// collective. Filled on rank 0. Nothing, on all ranks, when any was asked to stop.
  struct Validation {
    Metrics metrics;       ///< val-core/..., val-aux/...
    double reward = 0;     ///< mean over all samples
    double accuracy = -1;  ///< mean of "correct", -1 when the environment has no such thing
    std::vector<rollout::Group> groups;
  };
  std::optional<Validation> validate(int64_t step);

  /// The held-out samples themselves; on rank 0 (and the other learners). Nothing:
  /// asked to stop.
  std::optional<std::vector<rollout::Group>> generate_validation(int64_t step);

  const std::vector<rollout::Group>& last_groups() const { return groups_; }

  /// Of the last generation, on rank 0.
  const DroppedSamples& dropped() const { return dropped_; }

  /// A sample of the last step to try the policy on; none before it, nor on ranks that
  /// only act.
  std::optional<PolicyProbe> probe() const;

  /// Weights changed outside of step() (SFT, resume): sends them to the actors.
  /// Collective. `version` is their identity: steps done, SFT's and RL's, as in the
  /// name of a checkpoint of them, so that it is the same however often the run was
  /// interrupted. Each step() adds one.
  void publish(uint64_t version);

 private:
  using Samples =
      std::optional<std::vector<rollout::Group>>;  // nothing: asked to stop, alike on all ranks
  Samples generate(actors::Split split, uint64_t step, uint64_t begin, uint64_t end,
                   Timings& timings);
  std::string label(actors::Split split, uint64_t step) const;  // "generate step 606"
  Samples generate_groups(actors::Split split, uint64_t step, uint64_t begin, uint64_t end,
                          Timings& timings);
  /// Of data.env: external, collective: on rank 0 `groups` lose those with too few
  /// samples, and a warning says what was dropped. An Error of all ranks when none is
  /// left.
  void leave_out_dropped(actors::Split split, const std::string& label,
                         std::vector<rollout::Group>& groups);
  std::vector<rollout::Group> share_with_learners(std::vector<rollout::Group> groups);
  void show_progress();

  Job& job_;
  learners::Learner* learner_;
  int64_t steps_before_;
  std::optional<PolicyUpdate> update_;       // on learners
  std::unique_ptr<rollout::Engine> engine_;  // null on ranks that only learn
  uint64_t version_ = 0;                     // of the weights that the engine and the learner have
  double peak_flops_ = 0;                    // of a learner, on rank 0; 0: not yet measured
  std::vector<rollout::Group> groups_;
  DroppedSamples dropped_;  // of the last generation; on rank 0
};

}  // namespace orrery::experiments
