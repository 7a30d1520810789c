#include "learners/advantage.h"

#include <algorithm>
#include <cmath>

namespace orrery {
namespace {

constexpr double kEpsilon = 1e-6;

double mean(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double sample_std(std::span<const float> values) {
  if (values.size() < 2) return 0;
  const double center = mean(values);
  double sum = 0;
  for (const float v : values) sum += (v - center) * (v - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

std::vector<float> group_advantages(std::span<const float> rewards, const AdvantageParams& params) {
  std::vector<float> result(rewards.size(), 0.0f);
  const auto [low, high] = std::minmax_element(rewards.begin(), rewards.end());
  if (rewards.size() < 2 || *low == *high) return result;
  const double center = mean(rewards);
  const auto n = static_cast<double>(rewards.size());
  for (size_t i = 0; i < rewards.size(); ++i) {
    double advantage = rewards[i] - center;
    if (params.estimator == AdvantageEstimator::kRloo) {
      advantage *= n / (n - 1);  // r_i - (sum - r_i) / (n - 1)
    } else if (params.estimator == AdvantageEstimator::kGrpo && params.norm_by_std) {
      advantage /= sample_std(rewards) + kEpsilon;
    }
    result[i] = static_cast<float>(advantage);
  }
  return result;
}

}  // namespace

std::vector<std::vector<float>> compute_advantages(std::span<const std::vector<float>> rewards,
                                                   const AdvantageParams& params) {
  std::vector<std::vector<float>> result;
  result.reserve(rewards.size());
  for (const auto& group : rewards) result.push_back(group_advantages(group, params));
  if (params.estimator == AdvantageEstimator::kReinforcePlusPlusBaseline) {
    std::vector<float> all;
    for (const auto& group : result) all.insert(all.end(), group.begin(), group.end());
    const double scale = sample_std(all);
    if (scale > 0) {
      for (auto& group : result) {
        for (float& a : group) a = static_cast<float>(a / (scale + kEpsilon));
      }
    }
  }
  return result;
}

}  // namespace orrery
