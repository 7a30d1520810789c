// Samples whose numerics fingerprint is not the learner's: their log-probs are not the
// old policy's. The learner recomputes those and weights the tokens' losses by
// truncated importance sampling (learners/losses/importance_weight.h). Where all
// fingerprints are equal nothing is computed and nothing changes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "experiments/metrics.h"
#include "learners/learner.h"
#include "rollout/trajectory.h"

namespace orrery::experiments {

class RolloutCorrection {
 public:
  /// Collective over the learners, each with the same groups, before the step's first
  /// update. `prefix_tree_max_tokens`: as the update cuts trees; `cap` > 0.
  RolloutCorrection(learners::Learner& learner, const rollout::Fingerprint& own,
                    std::span<const rollout::Group> groups, float temperature,
                    int64_t prefix_tree_max_tokens, float cap);

  /// Of a sample, by its indices in `groups`: one entry per response token. Empty: the
  /// fingerprints are equal, the recorded log-probs are trusted and every weight is 1.
  std::span<const float> old_logprobs(size_t group, size_t sample) const;
  std::span<const float> weights(size_t group, size_t sample) const;

  bool any() const { return corrected_ > 0; }

  /// rollout_corr/corrected_share always; when any() also the mismatch
  /// (training/rollout_probs_diff_*, rollout/logprob_diff_max) and the weights, over
  /// the corrected tokens of the whole batch.
  void write(Metrics& metrics) const;

 private:
  struct CorrectedSample {
    std::vector<float> old_logprobs, weights;
  };
  void weigh(const rollout::Trajectory& recorded, CorrectedSample& sample, float cap);
  const CorrectedSample& at(size_t group, size_t sample) const;

  std::vector<std::vector<CorrectedSample>> samples_;
  double tokens_ = 0, corrected_ = 0, clipped_ = 0;
  double mismatches_ = 0;
  learners::LogprobDifference difference_;
  double weight_sum_ = 0, weight_max_ = 0;
};

/// What a run that verifies log-probs ends with: SFT and RL step (from 1), place, both
/// values, what to do.
std::string logprob_mismatch_text(int64_t step, const learners::LossSums& sums);

}  // namespace orrery::experiments
