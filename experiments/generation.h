// The samples of a batch of prompts: leased to the ranks that act, generated and
// rewarded there, collected on rank 0 and shared with the learners.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/actor.h"
#include "core/buffer.h"
#include "experiments/dropped_samples.h"
#include "experiments/job.h"
#include "experiments/leases.h"
#include "learners/learner.h"
#include "rollout/engine.h"

namespace orrery::experiments {

/// On every rank, for a whole stage: engine, actor and leases are made once.
class Generation {
 public:
  /// `learner`: of the same rank, or null. Its memory is the engine's while samples are
  /// generated: that of its gradients, or all that is left of the device
  /// (experiments/device_memory.h), which it then gets. `steps_before`: of SFT, for the
  /// run's step number in messages. `job` and `learner` must outlive it. Collective.
  Generation(Job& job, learners::Learner* learner, int64_t steps_before, StopAsked asked);

  struct Samples {
    std::vector<rollout::Group> groups;  ///< by prompt index; on learners
    DroppedSamples dropped;              ///< on rank 0
    double seconds = 0;                  ///< in all
    /// Of it in the environment, or waiting for it with nothing else to do; on rank 0,
    /// where it acts.
    std::optional<double> reward_seconds;
    /// Of the greedy response to each group's prompt, for a batch that asks for them;
    /// on learners.
    std::vector<float> greedy_rewards;
  };

  struct Batch {
    actors::Split split;
    LeaseBatch prompts;
    std::string label;    ///< "generate step 606"
    bool greedy = false;  ///< a greedy response to each prompt is drawn, too
  };
  /// The training prompts of RL step `step` (from 0).
  Batch train_batch(int64_t step) const;
  /// All held-out prompts, after `step` steps.
  Batch val_batch(int64_t step) const;

  /// Samples of a batch and their rewards. A greedy response comes before them, as the
  /// sample after a prompt's last, and only its reward is kept; a prompt without one is
  /// left out. Collective over all ranks. Nothing, alike on all ranks, when any was
  /// asked to stop. Error of exit code 3 when the policy yields NaN in a training run;
  /// an Error of all ranks when all samples were dropped.
  std::optional<Samples> run(const Batch& batch);

  /// How a batch's samples are drawn.
  uint64_t seed(const Batch& batch) const;
  kernels::SamplingParams sampling(const Batch& batch) const;

  /// The engine's weights have changed: they are of this version from now on.
  void set_weight_version(uint64_t version);

 private:
  [[noreturn]] void fail_diverged(const Batch& batch, const char* why) const;
  /// The batch's samples; `greedy`: its greedy responses instead.
  std::optional<Samples> generate(const Batch& batch, bool greedy);
  actors::ActorConfig actor_config(const Batch& batch, bool greedy) const;
  void leave_out_dropped(const Batch& batch, size_t least, Samples& samples);
  /// Gives the groups their prompts' greedy rewards.
  void add_greedy_rewards(const Batch& batch, const Samples& greedy, Samples& samples);
  void share_with_learners(std::vector<rollout::Group>& groups);

  Job& job_;
  const int64_t steps_before_;
  Buffer memory_;                            // what was left of the device, if it was taken
  std::unique_ptr<rollout::Engine> engine_;  // null on ranks that only learn, as is the actor
  std::unique_ptr<actors::Actor> actor_;
  std::unique_ptr<Leases> leases_;
};

}  // namespace orrery::experiments
