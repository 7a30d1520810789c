#include "experiments/validation_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "experiments/rl_metrics.h"

namespace orrery::experiments {
namespace {

constexpr const char* kAccuracy = "acc";  // verl's name for what our environments call "correct"

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / values.size();
}

/// Over all of them, as numpy.std has it.
double population_std(const std::vector<double>& values) {
  const double center = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - center) * (v - center);
  return std::sqrt(squares / values.size());
}

/// One variable's figures of one prompt, under the last part of their names, to be
/// averaged over prompts. `dropped`: samples that have no value, as their environment
/// failed; names are those of all samples.
void add_prompt(std::map<std::string, Summary>& figures, const std::string& variable,
                const std::vector<double>& values, int dropped) {
  const int have = values.size(), n = have + dropped;
  figures[fmt::format("mean@{}", n)].add(mean(values));
  if (n == 1) return;
  if (have > 1) figures[fmt::format("std@{}", n)].add(population_std(values));
  std::vector<double> negated;
  for (const double v : values) negated.push_back(-v);
  const int right = std::count_if(values.begin(), values.end(), [](double v) { return v > 0.5; });
  for (const int k : subset_sizes(n)) {
    const DrawSummary best = best_of_draws(values, k), worst = best_of_draws(negated, k);
    figures[fmt::format("best@{}/mean", k)].add(best.mean);
    figures[fmt::format("best@{}/std", k)].add(best.std);
    figures[fmt::format("worst@{}/mean", k)].add(-worst.mean);
    figures[fmt::format("worst@{}/std", k)].add(worst.std);
    if (variable == kAccuracy && k <= have)
      figures[fmt::format("pass@{}", k)].add(pass_at_k(have, right, k));
  }
}

}  // namespace

double pass_at_k(int n, int correct, int k) {
  if (n - correct < k) return 1.0;
  double miss = 1.0;
  const double draws = k;
  for (int i = n - correct + 1; i <= n; ++i) miss *= 1.0 - draws / i;
  return 1.0 - miss;
}

std::vector<int> subset_sizes(int n) {
  std::vector<int> sizes;
  for (int k = 2; k < n; k *= 2) sizes.push_back(k);
  if (n > 1) sizes.push_back(n);
  return sizes;
}

DrawSummary best_of_draws(std::vector<double> values, int k) {
  std::sort(values.begin(), values.end());
  const double n = values.size();
  double first = 0, second = 0, below = 0;  // below: all k draws are among the values before
  for (size_t i = 0; i < values.size(); ++i) {
    const double up_to = std::pow((i + 1) / n, k);
    first += values[i] * (up_to - below);
    second += values[i] * values[i] * (up_to - below);
    below = up_to;
  }
  return {first, std::sqrt(std::max(0.0, second - first * first))};
}

void summarize_validation(std::span<const rollout::Group> groups, Metrics& metrics, double& reward,
                          double& accuracy) {
  // Of each source, of each variable, its figures.
  std::map<std::string, std::map<std::string, std::map<std::string, Summary>>> sources;
  Summary rewards, correct, turns;
  size_t samples = 0;
  for (const rollout::Group& group : groups) {
    if (group.samples.empty()) continue;
    std::map<std::string, std::vector<double>> variables;
    samples = std::max(samples, group.samples.size() + group.dropped);
    for (const rollout::Trajectory& t : group.samples) {
      rewards.add(t.reward);
      turns.add(count_turns(t));
      variables["reward"].push_back(t.reward);
      for (const auto& [name, value] : t.reward_extra) {
        variables[name == "correct" ? kAccuracy : name].push_back(value);
        if (name == "correct") correct.add(value);
      }
    }
    auto& source = sources[group.samples.front().data_source];
    for (const auto& [name, values] : variables)
      add_prompt(source[name], name, values, group.dropped);
  }
  for (const auto& [source, variables] : sources) {
    const std::string core = variables.contains(kAccuracy) ? kAccuracy : "reward";
    for (const auto& [variable, figures] : variables) {
      for (const auto& [figure, summary] : figures) {
        const bool all = figure.find(fmt::format("@{}", samples)) != std::string::npos;
        const bool main = figure.starts_with("mean@") || figure.starts_with("best@") ||
                          figure.starts_with("pass@");
        const char* section = variable == core && all && main ? "val-core" : "val-aux";
        metrics[fmt::format("{}/{}/{}/{}", section, source, variable, figure)] = summary.mean();
      }
    }
  }
  turns.write(metrics, "val-aux/num_turns");
  reward = rewards.mean();
  accuracy = correct.count() > 0 ? correct.mean() : -1;
}

}  // namespace orrery::experiments
