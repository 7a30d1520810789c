#include "learners/advantage.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/plain_error.h"

namespace orrery::learners {
namespace {

constexpr double kEpsilon = 1e-6;
constexpr double kWhiteningEpsilon = 1e-8;  // verl's masked_whiten

/// Infinite where a float cannot hold it.
float to_float(double value) {
  if (std::abs(value) > std::numeric_limits<float>::max())
    return value > 0 ? std::numeric_limits<float>::infinity()
                     : -std::numeric_limits<float>::infinity();
  return static_cast<float>(value);
}

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
    } else if (params.norm_by_std) {
      advantage /= sample_std(rewards) + kEpsilon;
    }
    result[i] = to_float(advantage);
  }
  return result;
}

/// All groups' advantages under reinforce-plus-plus-baseline.
std::vector<std::vector<float>> whitened_over_tokens(std::span<const GroupRewards> groups) {
  std::vector<std::vector<double>> centred(groups.size());
  double tokens = 0, sum = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<float>& rewards = groups[g].rewards;
    const double baseline = rewards.size() > 1 ? mean(rewards) : 0.0;
    for (size_t i = 0; i < rewards.size(); ++i) {
      centred[g].push_back(rewards[i] - baseline);
      const auto count = static_cast<double>(groups[g].loss_tokens[i]);
      tokens += count;
      sum += count * centred[g].back();
    }
  }
  std::vector<std::vector<float>> result(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) result[g].assign(centred[g].size(), 0.0f);
  if (tokens < 2) return result;
  const double center = sum / tokens;
  double squares = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < centred[g].size(); ++i) {
      const double distance = centred[g][i] - center;
      squares += static_cast<double>(groups[g].loss_tokens[i]) * distance * distance;
    }
  }
  const double scale = 1.0 / std::sqrt(squares / (tokens - 1) + kWhiteningEpsilon);
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < centred[g].size(); ++i) {
      if (groups[g].loss_tokens[i] > 0) result[g][i] = to_float((centred[g][i] - center) * scale);
    }
  }
  return result;
}

/// values(g): what to look at of group g.
template <class Values>
void refuse_if_not_finite(std::span<const GroupRewards> groups, const char* what, const char* todo,
                          Values&& values) {
  int64_t count = 0, all = 0;
  size_t first_group = 0, first_sample = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<float>& of_group = values(g);
    for (size_t i = 0; i < of_group.size(); ++i) {
      ++all;
      if (std::isfinite(of_group[i])) continue;
      if (count++ == 0) {
        first_group = g;
        first_sample = i;
      }
    }
  }
  if (count == 0) return;
  fail_as_users(
      "{} of the batch's {} {}s are not finite numbers, first that of prompt {} sample {} ({}): {}",
      count, all, what, groups[first_group].prompt_index, first_sample,
      values(first_group)[first_sample], todo);
}

}  // namespace

std::vector<std::vector<float>> compute_advantages(std::span<const GroupRewards> groups,
                                                   const AdvantageParams& params) {
  for (const GroupRewards& group : groups) {
    ORRERY_CHECK(group.loss_tokens.size() == group.rewards.size(), "{} token counts of {} rewards",
                 group.loss_tokens.size(), group.rewards.size());
  }
  refuse_if_not_finite(groups, "reward", "fix the environment or the data row",
                       [&](size_t g) -> const std::vector<float>& { return groups[g].rewards; });
  std::vector<std::vector<float>> result;
  if (params.estimator == AdvantageEstimator::kReinforcePlusPlusBaseline) {
    result = whitened_over_tokens(groups);
  } else {
    result.reserve(groups.size());
    for (const GroupRewards& group : groups)
      result.push_back(group_advantages(group.rewards, params));
  }
  refuse_if_not_finite(groups, "advantage",
                       "the rewards are too large for float32; scale them down",
                       [&](size_t g) -> const std::vector<float>& { return result[g]; });
  return result;
}

}  // namespace orrery::learners
