// Whitening over the loss tokens of a whole batch, as verl's masked_whiten does:
// (x - mean(x)) / sqrt(var(x) + 1e-8), var with n - 1. verl's mean divides by n + 1e-8
// instead of n, which makes noise of values that nearly agree; this one does not.
#pragma once

#include "learners/advantages/group_rewards.h"

namespace orrery::learners {

/// A value, and how many loss tokens have it.
struct CountedValue {
  double value = 0, tokens = 0;
};

/// In the shape of `values`. One that no token has becomes 0, and so do all where fewer
/// than two tokens have any (verl: an error).
inline std::vector<std::vector<float>> whitened(std::span<const std::vector<CountedValue>> values) {
  constexpr double kWhiteningEpsilon = 1e-8;
  std::vector<std::vector<float>> result;
  double tokens = 0, sum = 0;
  for (const auto& row : values) {
    result.emplace_back(row.size(), 0.0f);
    for (const CountedValue& one : row) {
      tokens += one.tokens;
      sum += one.tokens * one.value;
    }
  }
  if (tokens < 2) return result;
  const double center = sum / tokens;
  double squares = 0;
  for (const auto& row : values) {
    for (const CountedValue& one : row) {
      const double distance = one.value - center;
      squares += one.tokens * distance * distance;
    }
  }
  const double scale = 1.0 / std::sqrt(squares / (tokens - 1) + kWhiteningEpsilon);
  auto out = result.begin();
  for (const auto& row : values) {
    auto advantage = (out++)->begin();
    for (const CountedValue& one : row) {
      if (one.tokens > 0) *advantage = advantage_of((one.value - center) * scale);
      ++advantage;
    }
  }
  return result;
}

/// The samples' values with their numbers of loss tokens.
template <class Values>
std::vector<CountedValue> counted(const Values& values, std::span<const int64_t> loss_tokens) {
  std::vector<CountedValue> result;
  auto count = loss_tokens.begin();
  for (const double value : values) result.push_back({value, static_cast<double>(*count++)});
  return result;
}

}  // namespace orrery::learners
