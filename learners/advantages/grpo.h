// GRPO: r - mean(group), over std(group) + 1e-6 with norm_by_std (Shao et al. 2024;
// without: Liu et al. 2025).
#pragma once

#include <cmath>

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// The sample standard deviation (n - 1), as in verl; 0 of one value.
inline double sample_std(std::span<const float> values) {
  if (values.size() < 2) return 0;
  const double center = mean(values);
  double sum = 0;
  for (const float v : values) sum += (v - center) * (v - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// A group of equal rewards, or of one sample, has advantages 0.
inline std::vector<float> grpo_advantages(std::span<const float> rewards, bool norm_by_std) {
  constexpr double kEpsilon = 1e-6;
  std::vector<float> result(rewards.size(), 0.0f);
  if (is_uniform(rewards)) return result;
  const double center = mean(rewards), scale = norm_by_std ? sample_std(rewards) + kEpsilon : 1.0;
  auto out = result.begin();
  for (const float reward : rewards) *out++ = advantage_of((reward - center) / scale);
  return result;
}

}  // namespace orrery::learners
