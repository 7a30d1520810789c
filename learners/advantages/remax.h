// ReMax: r - r(greedy response to the prompt) (Li et al. 2024, arXiv 2310.10505,
// algorithm 1; verl's remax). No sample is compared with its group, so one of each
// prompt is enough; the greedy response is drawn besides and is not learned from.
#pragma once

#include "core/error.h"
#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// REQUIRES: the group has greedy_reward.
inline std::vector<float> remax_advantages(const GroupRewards& group) {
  ORRERY_CHECK(group.greedy_reward.has_value(), "prompt {} has no greedy response",
               group.prompt_index);
  const double baseline = *group.greedy_reward;
  std::vector<float> result;
  for (const double reward : group.rewards) result.push_back(advantage_of(reward - baseline));
  return result;
}

}  // namespace orrery::learners
