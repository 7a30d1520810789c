// REINFORCE++-baseline: r - mean(group), then whitened over the loss tokens of the
// whole batch (Hu et al. 2025, arXiv 2501.03262), as verl does. A sample counts as
// often as it has loss tokens, and a group of equal rewards is not 0 in general.
#pragma once

#include "learners/advantages/whitening.h"

namespace orrery::learners {

/// Of all groups. The mean of a group of one sample is 0, as in verl.
inline std::vector<std::vector<float>> reinforce_plus_plus_baseline_advantages(
    std::span<const GroupRewards> groups) {
  std::vector<std::vector<CountedValue>> values;
  for (const GroupRewards& group : groups) {
    const double baseline = group.rewards.size() > 1 ? mean(group.rewards) : 0.0;
    auto& centred = values.emplace_back(counted(group.rewards, group.loss_tokens));
    for (CountedValue& one : centred) one.value -= baseline;
  }
  return whitened(values);
}

}  // namespace orrery::learners
