// Metrics of validation and the estimates that evaluation shares with it. Plain values
// in, plain values out.
#pragma once

#include <span>
#include <vector>

#include "experiments/metrics.h"
#include "rollout/trajectory.h"

namespace orrery::experiments {

/// Unbiased estimate that at least one of k draws is right, given c right of n (Chen et
/// al. 2021): 1 - C(n - c, k) / C(n, k).
double pass_at_k(int n, int correct, int k);

/// How many of n samples best@, worst@ and pass@ are given for, as verl has it: 2, 4,
/// 8, ... below n, and n; nothing for n = 1.
std::vector<int> subset_sizes(int n);

/// Mean and standard deviation of the largest of k draws, with replacement, from the
/// values: exactly what verl's bootstrap of 1,000 resamples estimates. The smallest of
/// k: negate the values and the mean.
struct DrawSummary {
  double mean = 0, std = 0;
};
DrawSummary best_of_draws(std::vector<double> values, int k);

/// val-core/ and val-aux/ metrics by data source and variable (reward, acc, other
/// reward parts), means over prompts. Samples that were dropped are in no figure; a
/// prompt with fewer than k samples left is not in pass@k. `reward`: mean over all
/// samples; `accuracy`: mean of "correct", -1 when no sample has it.
void summarize_validation(std::span<const rollout::Group> groups, Metrics& metrics, double& reward,
                          double& accuracy);

}  // namespace orrery::experiments
