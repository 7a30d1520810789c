// Pass@k training in its analytic form (Chen et al. 2025, arXiv 2508.10751, "Analytical
// Derivation"). Of the n samples all sets of k are formed; a set's reward is its best
// sample's, R_S. A sample's advantage is its sets' mean of (R_S - mean(R)) / (std(R) +
// 1e-6), mean and std over all sets; without norm_by_std it is not divided. No set is
// enumerated: with rewards in ascending order r_1 ... r_n,
//   mean(R) = sum_j w_j r_j,  w_j = C(j-1, k-1) / C(n, k)
//   mean of the sets of i = a_i r_i + sum_{j>i} b_j r_j,
//   a_i = C(i-1, k-1) / C(n-1, k-1),  b_j = C(j-2, k-2) / C(n-1, k-1).
// For rewards of 0 and 1 that is the paper's: with m wrong samples R = 1 - C(m, k) /
// C(n, k) and sigma = sqrt(R (1 - R)), (1 - R) / sigma for right ones, and for wrong
// ones (1 - R - C(m-1, k-1) / C(n-1, k-1)) / sigma.
#pragma once

#include "learners/advantages/grpo.h"

namespace orrery::learners {

/// `k` is at least 1. A group of k samples or fewer has one set or none, and so has
/// advantages 0, as has one whose sets are all as good.
inline std::vector<float> passk_advantages(std::span<const float> rewards, int64_t k,
                                           bool norm_by_std) {
  const int64_t n = std::ssize(rewards);
  std::vector<float> result(rewards.size(), 0.0f);
  if (n <= k || is_uniform(rewards)) return result;
  std::vector<int64_t> order(rewards.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t x, int64_t y) { return rewards[x] < rewards[y]; });
  const double best = rewards[order.back()];
  // Below the best, so that sets which hold it are 0 to the bit.
  const auto reward = [&](int64_t j) { return rewards[order[j - 1]] - best; };

  const auto count = static_cast<double>(n), size = static_cast<double>(k);
  std::vector<double> w(n + 1, 0.0);
  w[n] = size / count;
  double center = 0;
  for (int64_t j = n; j >= k; --j) {
    center += w[j] * reward(j);
    if (j > k) w[j - 1] = w[j] * static_cast<double>(j - k) / static_cast<double>(j - 1);
  }
  double variance = 0;
  for (int64_t j = n; j >= k; --j) variance += w[j] * (reward(j) - center) * (reward(j) - center);
  const double scale = norm_by_std ? std::sqrt(variance) + kStdEpsilon : 1.0;

  double a = 1, b = (size - 1) / (count - 1), above = 0, value = 0;
  for (int64_t i = n; i >= 1; --i) {
    // Equal rewards have the value of the last of them, to the bit.
    if (i == n || reward(i) != reward(i + 1)) value = a * reward(i) + above;
    result[order[i - 1]] = advantage_of((value - center) / scale);
    above += b * reward(i);
    if (i > 1) a *= static_cast<double>(std::max<int64_t>(i - k, 0)) / static_cast<double>(i - 1);
    if (i > 2) b *= static_cast<double>(std::max<int64_t>(i - k, 0)) / static_cast<double>(i - 2);
  }
  return result;
}

}  // namespace orrery::learners
