// MaxRL: (r - mean(group)) / mean(group) (Tajwar et al. 2026, arXiv 2602.02710). For
// rewards of 0 and 1 its expectation is the gradient of log(probability of a right
// answer), cut after the term that n samples can estimate; rare successes count more
// than in GRPO.
#pragma once

#include "core/error_report.h"
#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// A group of equal rewards, or of one sample, has advantages 0. Error for a negative
/// reward, as the mean that is divided by could be 0 or below. The authors' program
/// adds 1e-6 to the mean, which moves the advantages of a group of rare successes; the
/// paper does not.
inline std::vector<float> maxrl_advantages(const GroupRewards& group) {
  std::vector<float> result(group.rewards.size(), 0.0f);
  for (int64_t i = 0; i < std::ssize(group.rewards); ++i) {
    if (group.rewards[i] < 0) {
      fail_user_error(
          "the reward of prompt {} sample {} is {}: algorithm.adv_estimator maxrl divides by a "
          "group's mean reward, so that no reward may be negative: "
          "shift the rewards, or choose another estimator",
          group.prompt_index, i, group.rewards[i]);
    }
  }
  if (is_uniform(group.rewards)) return result;
  const double center = mean(group.rewards);
  auto out = result.begin();
  for (const double reward : group.rewards) *out++ = advantage_of((reward - center) / center);
  return result;
}

}  // namespace orrery::learners
