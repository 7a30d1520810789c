// Pass@k with k = the group, by leaving one out: max(all) - max(all others), which is
// the best sample's lead on the second and 0 for the rest; over std(group) + 1e-6 with
// norm_by_std (Tang et al. 2025, arXiv 2503.19595; verl's grpo_passk).
#pragma once

#include "learners/advantages/grpo.h"

namespace orrery::learners {

/// Where several samples are best, all advantages are 0: without any one of them the
/// group is as good. So they are for one sample (verl: an error).
inline std::vector<float> grpo_passk_advantages(std::span<const float> rewards, bool norm_by_std) {
  std::vector<float> result(rewards.size(), 0.0f);
  if (is_uniform(rewards)) return result;
  const auto best = std::max_element(rewards.begin(), rewards.end()) - rewards.begin();
  double second = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < std::ssize(rewards); ++i) {
    if (i != best) second = std::max<double>(second, rewards[i]);
  }
  const double scale = norm_by_std ? sample_std(rewards) + kStdEpsilon : 1.0;
  result[best] = advantage_of((rewards[best] - second) / scale);
  return result;
}

}  // namespace orrery::learners
