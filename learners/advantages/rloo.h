// RLOO: r - mean of the group's other samples (Ahmadian et al. 2024).
#pragma once

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// A group of equal rewards, or of one sample, has advantages 0.
inline std::vector<float> rloo_advantages(std::span<const float> rewards) {
  std::vector<float> result(rewards.size(), 0.0f);
  if (is_uniform(rewards)) return result;
  const double center = mean(rewards);
  const auto n = static_cast<double>(rewards.size());
  auto out = result.begin();
  for (const float reward : rewards) {
    double advantage = reward - center;
    advantage *= n / (n - 1);  // r_i - (sum - r_i) / (n - 1)
    *out++ = advantage_of(advantage);
  }
  return result;
}

}  // namespace orrery::learners
