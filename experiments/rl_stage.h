// The RL stage: GRPO and its kin, synchronously. Reads as the algorithm does: generate,
// reward, advantages, update, publish.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "experiments/divergence.h"
#include "experiments/generation.h"
#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/policy_update.h"
#include "experiments/step_stats.h"
#include "learners/learner.h"
#include "rollout/draw_record.h"

namespace orrery::experiments {

class RlStage {
 public:
  /// `learner` is null on ranks that only act. All must outlive the stage.
  /// `steps_before`: of SFT, for the run's step number in messages; what the stage
  /// computes depends on its own steps alone. `asked`: whether this rank is to stop.
  RlStage(Job& job, learners::Learner* learner, int64_t steps_before = 0,
          StopAsked asked = launch::stop_requested);
  ~RlStage();
  RlStage(const RlStage&) = delete;
  RlStage& operator=(const RlStage&) = delete;

  /// Step `step` (from 0): one batch of prompts, sampled, rewarded and learned from.
  /// Collective over all ranks. The report is filled on learners, where the groups of
  /// the batch are kept in last_groups(). Nothing, on all ranks, when any was asked to
  /// stop while samples were generated, or the only rank before it had changed a
  /// weight: the samples are dropped, and weights and moments are those of the step
  /// before.
  std::optional<StepReport> step(int64_t step);

  /// Scores of held-out prompts under the current weights.
  struct Validation {
    Metrics metrics;       ///< val-core/..., val-aux/...
    double reward = 0;     ///< mean over all samples
    double accuracy = -1;  ///< mean of "correct", -1 when the environment has no such thing
    std::vector<rollout::Group> groups;
    std::optional<rollout::DrawRecord> drawn;  ///< where the samples are kept
    bool has_accuracy() const { return accuracy >= 0; }
    double score() const { return has_accuracy() ? accuracy : reward; }
  };
  /// After `step` steps. Collective over all ranks; filled on rank 0. Nothing, on all
  /// ranks, when any was asked to stop.
  std::optional<Validation> validate(int64_t step);

  const std::vector<rollout::Group>& last_groups() const { return groups_; }
  /// How they were drawn: on rank 0, where the run keeps them.
  const std::optional<rollout::DrawRecord>& last_drawn() const { return drawn_; }

  /// A sample of the last step to try the policy on; none before it, nor on ranks that
  /// only act.
  std::optional<PolicyProbe> probe() const;

  /// Weights changed outside of step() (SFT, resume): sends them to the actors.
  /// Collective. `version` is their identity: steps done, SFT's and RL's, as in the
  /// name of a checkpoint of them, so that it is the same however often the run was
  /// interrupted. Each step() adds one.
  void publish(uint64_t version);

 private:
  /// An Error of all ranks when the learners have refused the batch, which they do
  /// alike: those who only generate hear of it here.
  void agree_on_refusal(const std::string& refusal);
  /// What is said of a step beside its updates.
  void add_metrics(int64_t step, const DroppedSamples& dropped, Timings& timings,
                   StepReport& report);
  void show_progress();
  /// What is to be said of the batch's samples, before the weights change. Nothing on
  /// ranks that keep none.
  std::optional<rollout::DrawRecord> draw_record(const Generation::Batch& batch) const;

  Job& job_;
  learners::Learner* learner_;
  const int64_t steps_before_;
  const StopAsked asked_to_stop_;
  Generation generation_;
  std::optional<PolicyUpdate> update_;  // on learners
  uint64_t version_ = 0;                // of the weights that the engine and the learner have
  double peak_flops_ = 0;               // of a learner, on rank 0; 0: not yet measured
  std::vector<rollout::Group> groups_;  // of the last step
  std::optional<rollout::DrawRecord> drawn_;
};

}  // namespace orrery::experiments
