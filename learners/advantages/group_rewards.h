// What advantages are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace orrery::learners {

/// Rewards of a prompt's samples, in sample order.
struct GroupRewards {
  uint64_t prompt_index = 0;  ///< for messages
  std::vector<float> rewards;
  std::vector<int64_t> loss_tokens;  ///< of each sample: set entries of its loss mask
};

/// Infinite where a float cannot hold it.
inline float advantage_of(double value) {
  constexpr auto kInfinity = std::numeric_limits<float>::infinity();
  if (std::abs(value) > std::numeric_limits<float>::max())
    return value > 0 ? kInfinity : -kInfinity;
  return static_cast<float>(value);
}

inline double mean(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

/// Whether a group teaches nothing under estimators that compare its samples alone.
inline bool is_uniform(std::span<const float> rewards) {
  const auto [low, high] = std::minmax_element(rewards.begin(), rewards.end());
  return rewards.size() < 2 || *low == *high;
}

}  // namespace orrery::learners
