// REINFORCE++-baseline: r - mean(group), then whitened over the loss tokens of the
// whole batch (Hu 2025), as verl does: with x = r - mean(group) on every loss token of
// its sample, (x - mean(x)) / sqrt(var(x) + 1e-8), var with n - 1. A sample counts as
// often as it has loss tokens, and a group of equal rewards is not 0 in general.
#pragma once

#include <cmath>

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// Of all groups. The mean of a group of one sample is 0, as in verl; a sample without
/// loss tokens has advantage 0, and so has every sample of a batch with fewer than two
/// of them (verl: an error).
inline std::vector<std::vector<float>> reinforce_plus_plus_baseline_advantages(
    std::span<const GroupRewards> groups) {
  constexpr double kWhiteningEpsilon = 1e-8;  // verl's masked_whiten
  struct Sample {
    double centred, tokens;
  };
  std::vector<std::vector<Sample>> samples;
  std::vector<std::vector<float>> result;
  double tokens = 0, sum = 0;
  for (const GroupRewards& group : groups) {
    const double baseline = group.rewards.size() > 1 ? mean(group.rewards) : 0.0;
    auto& centred = samples.emplace_back();
    auto count = group.loss_tokens.begin();
    for (const float reward : group.rewards) {
      const Sample& sample =
          centred.emplace_back(Sample{reward - baseline, static_cast<double>(*count++)});
      tokens += sample.tokens;
      sum += sample.tokens * sample.centred;
    }
    result.emplace_back(centred.size(), 0.0f);
  }
  if (tokens < 2) return result;
  const double center = sum / tokens;
  double squares = 0;
  for (const auto& group : samples) {
    for (const Sample& sample : group) {
      const double distance = sample.centred - center;
      squares += sample.tokens * distance * distance;
    }
  }
  const double scale = 1.0 / std::sqrt(squares / (tokens - 1) + kWhiteningEpsilon);
  auto out = result.begin();
  for (const auto& group : samples) {
    auto advantage = (out++)->begin();
    for (const Sample& sample : group) {
      if (sample.tokens > 0) *advantage = advantage_of((sample.centred - center) * scale);
      ++advantage;
    }
  }
  return result;
}

}  // namespace orrery::learners
