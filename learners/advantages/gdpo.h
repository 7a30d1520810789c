// GDPO: each part of the reward is compared within the group apart, as GRPO does with
// the whole of it, so that a part of large values drowns out no other; then sum_k
// weight_k A_k is whitened over the loss tokens of the whole batch (Liu et al. 2026,
// arXiv 2601.05242; verl's gdpo). The reward itself is not looked at.
#pragma once

#include "core/error.h"
#include "core/error_report.h"
#include "learners/advantages/grpo.h"
#include "learners/advantages/whitening.h"

namespace orrery::learners {

/// The part `name` of each of a group's samples, in order. An Error that names the
/// parts there are when one has it not.
inline std::vector<double> reward_part(const GroupRewards& group, const std::string& name) {
  ORRERY_CHECK(group.parts.size() == group.rewards.size(), "{} samples have parts of {} rewards",
               group.parts.size(), group.rewards.size());
  std::vector<double> result;
  for (const auto& parts : group.parts) {
    const auto found = parts.find(name);
    if (found != parts.end()) {
      result.push_back(found->second);
      continue;
    }
    std::vector<std::string> names;
    for (const auto& [known, value] : parts) names.push_back(known);
    fail_user_error(
        "algorithm.gdpo_reward_keys has '{}', and the reward of prompt {} sample {} has no such "
        "part: it has {}; name parts that every sample has",
        name, group.prompt_index, result.size(),
        names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", ")));
  }
  return result;
}

/// Of all groups. `weights`: one of each name; none: 1 each. Values of a part that are
/// equal in a group, or a single one, add 0.
inline std::vector<std::vector<float>> gdpo_advantages(std::span<const GroupRewards> groups,
                                                       std::span<const std::string> names,
                                                       std::span<const double> weights) {
  std::vector<std::vector<CountedValue>> values;
  for (const GroupRewards& group : groups) {
    std::vector<double> sums(group.rewards.size(), 0.0);
    for (size_t k = 0; k < names.size(); ++k) {
      const double weight = weights.empty() ? 1.0 : weights[k];
      auto sum = sums.begin();
      for (const double value : centred_in_group(reward_part(group, names[k]), true))
        *sum++ += weight * value;
    }
    values.push_back(counted(sums, group.loss_tokens));
  }
  return whitened(values);
}

}  // namespace orrery::learners
