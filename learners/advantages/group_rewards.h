// What advantages are made of.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace orrery::learners {

/// Rewards of a prompt's samples, in sample order.
struct GroupRewards {
  uint64_t prompt_index = 0;  ///< for messages
  std::vector<float> rewards;
  std::vector<int64_t> loss_tokens;  ///< of each sample: set entries of its loss mask
  std::vector<std::map<std::string, double>> parts;  ///< of each sample's reward, by name
  std::optional<float> greedy_reward;  ///< of the greedy response to the prompt, if one was drawn
};

/// Infinite where a float cannot hold it.
inline float advantage_of(double value) {
  constexpr auto kInfinity = std::numeric_limits<float>::infinity();
  if (std::abs(value) > std::numeric_limits<float>::max())
    return value > 0 ? kInfinity : -kInfinity;
  return static_cast<float>(value);
}

/// The functions below take rewards, or parts of them, of any number type.
template <class Values>
double mean(const Values& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The sample standard deviation (n - 1), as in verl; 0 of one value.
template <class Values>
double sample_std(const Values& values) {
  if (values.size() < 2) return 0;
  const double center = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - center) * (v - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// Whether a group teaches nothing under estimators that compare its samples alone: its
/// rewards are equal, or there is but one.
template <class Values>
bool is_uniform(const Values& rewards) {
  const auto [low, high] = std::minmax_element(rewards.begin(), rewards.end());
  return rewards.size() < 2 || *low == *high;
}

}  // namespace orrery::learners
