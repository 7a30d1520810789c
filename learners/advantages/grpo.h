// GRPO: r - mean(group), over std(group) + 1e-6 with norm_by_std (Shao et al. 2024,
// arXiv 2402.03300, section 4.1.2; without: Dr. GRPO, Liu et al. 2025, arXiv
// 2503.20783).
#pragma once

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// verl's, beside a standard deviation that it divides by.
inline constexpr double kStdEpsilon = 1e-6;

/// A group of equal rewards, or of one sample, has 0 throughout.
template <class Values>
std::vector<double> centred_in_group(const Values& rewards, bool norm_by_std) {
  std::vector<double> result(rewards.size(), 0.0);
  if (is_uniform(rewards)) return result;
  const double center = mean(rewards),
               scale = norm_by_std ? sample_std(rewards) + kStdEpsilon : 1.0;
  auto out = result.begin();
  for (const double reward : rewards) *out++ = (reward - center) / scale;
  return result;
}

inline std::vector<float> grpo_advantages(std::span<const float> rewards, bool norm_by_std) {
  std::vector<float> result;
  for (const double value : centred_in_group(rewards, norm_by_std))
    result.push_back(advantage_of(value));
  return result;
}

}  // namespace orrery::learners
