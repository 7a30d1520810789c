// REINFORCE++: the return of each token, whitened over the loss tokens of the whole
// batch (Hu et al. 2025, arXiv 2501.03262). An episode has one reward, at its end, and
// is not discounted (verl: algorithm.gamma 1), so each token's return is that reward.
// No sample is compared with its group.
#pragma once

#include "learners/advantages/whitening.h"

namespace orrery::learners {

/// Of all groups.
inline std::vector<std::vector<float>> reinforce_plus_plus_advantages(
    std::span<const GroupRewards> groups) {
  std::vector<std::vector<CountedValue>> values;
  for (const GroupRewards& group : groups)
    values.push_back(counted(group.rewards, group.loss_tokens));
  return whitened(values);
}

}  // namespace orrery::learners
