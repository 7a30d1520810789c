#include "experiments/rollout_correction.h"

#include <algorithm>

#include "core/error.h"
#include "experiments/rl_metrics.h"
#include "learners/batch.h"
#include "learners/losses/importance_weight.h"

namespace orrery::experiments {

RolloutCorrection::RolloutCorrection(learners::Learner& learner, const rollout::Fingerprint& own,
                                     std::span<const rollout::Group> groups, float temperature,
                                     int64_t prefix_tree_max_tokens, float cap) {
  std::vector<learners::Tree> trees;
  for (const rollout::Group& group : groups) {
    samples_.emplace_back(group.samples.size());
    std::vector<learners::Leaf> leaves;
    for (const rollout::Trajectory& t : group.samples) {
      tokens_ +=
          static_cast<double>(std::count(t.loss_mask.begin(), t.loss_mask.end(), uint8_t{1}));
      if (t.fingerprint == own) continue;
      learners::Leaf leaf;
      leaf.tokens = t.tokens;
      leaf.loss_mask = t.loss_mask;
      leaf.prompt_index = t.prompt_index;
      leaf.sample_index = t.sample_index;
      leaves.push_back(std::move(leaf));
    }
    if (leaves.empty()) continue;
    for (learners::Tree& tree : learners::make_trees(group.samples.front().prompt_tokens,
                                                     std::move(leaves), prefix_tree_max_tokens)) {
      trees.push_back(std::move(tree));
    }
  }
  if (trees.empty()) return;
  std::vector<std::vector<float>> recomputed = learner.logprobs(trees, temperature);
  size_t next = 0;  // leaves are in group and sample order
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].samples.size(); ++i) {
      const rollout::Trajectory& t = groups[g].samples[i];
      if (t.fingerprint == own) continue;
      samples_[g][i].old_logprobs = std::move(recomputed[next++]);
      weigh(t, samples_[g][i], cap);
    }
  }
}

void RolloutCorrection::weigh(const rollout::Trajectory& recorded, CorrectedSample& sample,
                              float cap) {
  sample.weights.assign(sample.old_logprobs.size(), 1.0f);
  for (size_t i = 0; i < sample.weights.size(); ++i) {
    if (recorded.loss_mask[i] == 0) continue;
    const float old_logp = sample.old_logprobs[i], rollout_logp = recorded.logprobs[i];
    const float weight = learners::importance_weight(old_logp, rollout_logp);
    sample.weights[i] =
        weight > cap ? cap : weight;  // a NaN stays one: the update that has it is skipped
    corrected_ += 1;
    clipped_ += weight > cap ? 1 : 0;
    mismatches_ += learners::same_bits(old_logp, rollout_logp) ? 0 : 1;
    weight_sum_ += weight;
    weight_max_ = learners::max_or_nan(weight_max_, weight);
    difference_.compare(old_logp, rollout_logp);
  }
}

const RolloutCorrection::CorrectedSample& RolloutCorrection::at(size_t group, size_t sample) const {
  return samples_[group][sample];
}

std::span<const float> RolloutCorrection::old_logprobs(size_t group, size_t sample) const {
  return at(group, sample).old_logprobs;
}

std::span<const float> RolloutCorrection::weights(size_t group, size_t sample) const {
  return at(group, sample).weights;
}

void RolloutCorrection::write(Metrics& metrics) const {
  metrics["rollout_corr/corrected_share"] = corrected_ / std::max(tokens_, 1.0);
  if (!any()) return;
  write_logprob_difference(metrics, difference_, corrected_);
  metrics["rollout/logprob_mismatches"] += mismatches_;
  metrics["rollout_corr/rollout_is_mean"] = weight_sum_ / corrected_;
  metrics["rollout_corr/rollout_is_max"] = weight_max_;
  metrics["rollout_corr/rollout_is_clipped_share"] = clipped_ / corrected_;
}

std::string logprob_mismatch_text(int64_t step, const learners::LossSums& sums) {
  const learners::TokenPlace& m = sums.mismatches.first;
  return fmt::format(
      "step {}: the log-prob recorded for prompt {} sample {} token {} (id {}) is {:.9g} but the "
      "learner computes {:.9g}; it is the first of {} such token(s) of {} in the mini-batch, "
      "and nothing was learned from it. Equal fingerprints mean equal bits, "
      "so a rank runs another build, or memory or the network damaged the batch: "
      "compare `orrery --version` and the memory of the hosts, "
      "then resume from the last checkpoint (algorithm.verify_logprobs=false reports differences "
      "in the metrics only)",
      step, m.prompt_index, m.sample_index, m.position, m.token_id, m.recorded, m.recomputed,
      static_cast<int64_t>(sums.mismatches.count), static_cast<int64_t>(sums.tokens));
}

}  // namespace orrery::experiments
