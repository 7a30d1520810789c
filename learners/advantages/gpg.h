// GPG: alpha (r - mean(group)), which undoes what groups that teach nothing take from
// the mean over the batch (Chu et al. 2025, arXiv 2504.02546). As in verl, alpha is the
// batch's samples over those of them whose reward is not 0, and the paper's F_norm is
// 1; the paper's alpha counts the samples of groups whose rewards differ.
#pragma once

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// Of all groups. A group of equal rewards, or of one sample (verl: alpha times its
/// reward), has advantages 0.
inline std::vector<std::vector<float>> gpg_advantages(std::span<const GroupRewards> groups) {
  double samples = 0, rewarded = 0;
  for (const GroupRewards& group : groups) {
    samples += static_cast<double>(group.rewards.size());
    for (const float reward : group.rewards) rewarded += reward != 0 ? 1 : 0;
  }
  const double alpha = samples / std::max(rewarded, 1.0);
  std::vector<std::vector<float>> result;
  for (const GroupRewards& group : groups) {
    auto& advantages = result.emplace_back(group.rewards.size(), 0.0f);
    if (is_uniform(group.rewards)) continue;
    const double center = mean(group.rewards);
    auto out = advantages.begin();
    for (const double reward : group.rewards) *out++ = advantage_of(alpha * (reward - center));
  }
  return result;
}

}  // namespace orrery::learners
