// OPO: r - b, with the baseline of least variance where a sample's gradient has a norm
// that grows with its length l: b = sum(l r) / sum(l) over the group (Hao et al. 2025,
// arXiv 2505.23585, "optimal reward baseline").
#pragma once

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// A group of equal rewards, of one sample (verl: its reward), or without a loss token
/// has advantages 0.
inline std::vector<float> opo_advantages(const GroupRewards& group) {
  std::vector<float> result(group.rewards.size(), 0.0f);
  double tokens = 0, sum = 0;
  auto count = group.loss_tokens.begin();
  for (const double reward : group.rewards) {
    const auto length = static_cast<double>(*count++);
    tokens += length;
    sum += length * reward;
  }
  if (is_uniform(group.rewards) || tokens == 0) return result;
  auto out = result.begin();
  for (const double reward : group.rewards) *out++ = advantage_of(reward - sum / tokens);
  return result;
}

}  // namespace orrery::learners
