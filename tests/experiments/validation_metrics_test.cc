#include "experiments/validation_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace orrery::experiments {
namespace {

TEST(PassAtK, IsTheUnbiasedEstimate) {
  EXPECT_DOUBLE_EQ(pass_at_k(10, 3, 1), 0.3);
  EXPECT_DOUBLE_EQ(pass_at_k(4, 0, 4), 0.0);
  EXPECT_DOUBLE_EQ(pass_at_k(4, 1, 4), 1.0);
  EXPECT_NEAR(pass_at_k(5, 2, 2), 1.0 - 3.0 / 10, 1e-12);  // 1 - C(3,2) / C(5,2)
}

TEST(SubsetSizes, ArePowersOfTwoAndAll) {
  EXPECT_EQ(subset_sizes(1), (std::vector<int>{}));
  EXPECT_EQ(subset_sizes(2), (std::vector<int>{2}));
  EXPECT_EQ(subset_sizes(6), (std::vector<int>{2, 4, 6}));
  EXPECT_EQ(subset_sizes(8), (std::vector<int>{2, 4, 8}));
}

TEST(BestOfDraws, IsWhatAllEquallyLikelyDrawsGive) {
  const std::vector<double> values = {0.25, 1, 0.25, -2};
  for (const int k : {1, 2, 3}) {
    double sum = 0, squares = 0;
    const int draws = static_cast<int>(std::pow(values.size(), k));
    for (int draw = 0; draw < draws; ++draw) {
      double best = -1e9;
      for (int i = 0, rest = draw; i < k; ++i, rest /= 4)
        best = std::max(best, values[static_cast<size_t>(rest % 4)]);
      sum += best;
      squares += best * best;
    }
    const DrawSummary summary = best_of_draws(values, k);
    EXPECT_NEAR(summary.mean, sum / draws, 1e-12);
    EXPECT_NEAR(summary.std, std::sqrt(squares / draws - std::pow(sum / draws, 2)), 1e-9);
  }
}

std::vector<rollout::Group> make_groups(bool with_correct) {
  const std::vector<std::vector<float>> rewards = {{0.25f, 1, 0, 0.5f, 0.5f, -1},
                                                   {1, 1, 0, 0, 2, 0.5f}};
  const std::vector<std::vector<double>> correct = {{0, 1, 0, 0, 0, 0}, {1, 1, 0, 0, 1, 0}};
  std::vector<rollout::Group> groups;
  for (size_t g = 0; g < rewards.size(); ++g) {
    groups.push_back({0, g, {}});
    for (size_t i = 0; i < rewards[g].size(); ++i) {
      rollout::Trajectory t;
      t.reward = rewards[g][i];
      if (with_correct) t.reward_extra["correct"] = correct[g][i];
      t.tokens = {1};
      t.loss_mask = {1};
      t.data_source = "s";
      groups.back().samples.push_back(std::move(t));
    }
  }
  return groups;
}

// verl's numbers are those of its process_validation_metrics on the same values: 1,000
// resamples with
// seed 42.
TEST(Validation, IsVerlsUpToTheNoiseOfItsBootstrap) {
  Metrics metrics;
  double reward = 0, accuracy = 0;
  summarize_validation(make_groups(true), metrics, reward, accuracy);
  EXPECT_NEAR(reward, 0.479167, 1e-6);
  EXPECT_NEAR(accuracy, 1.0 / 3, 1e-6);
  const std::vector<std::pair<const char*, double>> exact = {{"val-core/s/acc/mean@6", 0.333333},
                                                             {"val-aux/s/acc/std@6", 0.436339},
                                                             {"val-aux/s/reward/mean@6", 0.479167},
                                                             {"val-aux/s/reward/std@6", 0.655819}};
  for (const auto& [name, value] : exact) EXPECT_NEAR(metrics.at(name), value, 1e-6) << name;
  const std::vector<std::pair<const char*, double>> bootstrapped = {
      {"val-aux/s/reward/best@2/mean", 0.8405},    {"val-aux/s/reward/best@2/std", 0.528937},
      {"val-aux/s/reward/worst@2/mean", 0.12875},  {"val-aux/s/reward/worst@2/std", 0.550078},
      {"val-aux/s/reward/best@4/mean", 1.112875},  {"val-aux/s/reward/best@4/std", 0.417172},
      {"val-aux/s/reward/worst@4/mean", -0.16525}, {"val-aux/s/reward/worst@4/std", 0.43792},
      {"val-aux/s/reward/best@6/mean", 1.25075},   {"val-aux/s/reward/worst@6/mean", -0.3055},
      {"val-aux/s/acc/best@2/mean", 0.5355},       {"val-aux/s/acc/worst@2/mean", 0.138},
      {"val-core/s/acc/best@6/mean", 0.8205},      {"val-core/s/acc/best@6/std", 0.298297},
      {"val-aux/s/acc/worst@6/mean", 0.0075}};
  for (const auto& [name, value] : bootstrapped) EXPECT_NEAR(metrics.at(name), value, 0.05) << name;
  EXPECT_DOUBLE_EQ(metrics.at("val-core/s/acc/pass@6"), 1)
      << "one of six is right for both prompts";
  EXPECT_DOUBLE_EQ(metrics.at("val-aux/s/acc/pass@2"), ((1 - 10.0 / 15) + (1 - 3.0 / 15)) / 2);
  EXPECT_FALSE(metrics.contains("val-core/s/reward/mean@6"))
      << "verl's core variable is acc where there is one";
  EXPECT_EQ(metrics.at("val-aux/num_turns/mean"), 2);
}

TEST(Validation, RewardIsTheCoreVariableWithoutAccuracy) {
  Metrics metrics;
  double reward = 0, accuracy = 0;
  summarize_validation(make_groups(false), metrics, reward, accuracy);
  EXPECT_EQ(accuracy, -1);
  EXPECT_TRUE(metrics.contains("val-core/s/reward/mean@6"));
  EXPECT_TRUE(metrics.contains("val-core/s/reward/best@6/mean"));
  EXPECT_FALSE(metrics.contains("val-core/s/reward/pass@6")) << "a reward has no pass";
}

TEST(Validation, OneSampleHasItsMeanAlone) {
  auto groups = make_groups(true);
  for (rollout::Group& group : groups) group.samples.resize(1);
  Metrics metrics;
  double reward = 0, accuracy = 0;
  summarize_validation(groups, metrics, reward, accuracy);
  EXPECT_EQ(metrics.at("val-core/s/acc/mean@1"), 0.5);
  EXPECT_EQ(metrics.at("val-aux/s/reward/mean@1"), 0.625);
  EXPECT_EQ(metrics.size(), 2u + 3u) << "and the turns";
}

}  // namespace
}  // namespace orrery::experiments
