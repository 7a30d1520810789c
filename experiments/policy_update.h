// From a step's groups to new weights: advantages, correction of the rollout's
// log-probs, and the mini-batches' updates.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "experiments/job.h"
#include "experiments/metrics.h"
#include "experiments/step_stats.h"
#include "learners/learner.h"
#include "rollout/trajectory.h"

namespace orrery::experiments {

class PolicyUpdate {
 public:
  /// Both must outlive it. `steps_before`: of SFT, for the run's step number in
  /// messages.
  PolicyUpdate(Job& job, learners::Learner& learner, int64_t steps_before);

  /// Step `step` (from 0). Collective over the learners, all of which have the same
  /// groups. `greedy_rewards`: of the greedy responses to their prompts, or none.
  /// `version`: of the learner's weights. Returns the text of what is wrong
  /// with the batch when it was refused (alike on all learners), or nothing. What the
  /// learner's progress throws passes through.
  std::string run(int64_t step, std::span<const rollout::Group> groups,
                  std::span<const float> greedy_rewards, uint64_t version, StepReport& report,
                  Timings& timings);

  /// Whether an update is under way that has changed nothing, here or elsewhere: it may
  /// be left by an exception.
  bool may_give_up() const { return may_give_up_; }

 private:
  Job& job_;
  learners::Learner& learner_;
  int64_t steps_before_;
  bool may_give_up_ = false;
};

}  // namespace orrery::experiments
