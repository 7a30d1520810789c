#include "experiments/dropped_samples.h"

#include <gtest/gtest.h>

#include "experiments/validation_metrics.h"

namespace orrery::experiments {
namespace {

rollout::Group group(uint64_t prompt, size_t samples, uint32_t dropped) {
  rollout::Group group{0, prompt, {}, dropped};
  for (size_t i = 0; i < samples; ++i) {
    rollout::Trajectory t;
    t.prompt_index = prompt;
    t.sample_index = static_cast<uint32_t>(i);
    t.reward = static_cast<float>(i + 1);
    t.reward_extra["correct"] = i == 0 ? 1 : 0;
    t.tokens = {1};
    t.loss_mask = {1};
    t.data_source = "s";
    group.samples.push_back(std::move(t));
  }
  return group;
}

TEST(DroppedSamples, GroupsWithTooFewAreLeftOut) {
  std::vector<rollout::Group> groups = {group(0, 4, 0), group(1, 1, 3), group(2, 0, 4),
                                        group(3, 2, 2)};
  std::vector<rollout::Group> for_validation = groups;
  const DroppedSamples dropped = drop_small_groups(groups, 2);
  EXPECT_EQ(dropped.samples, 9u);
  EXPECT_EQ(dropped.all, 16u);
  EXPECT_EQ(dropped.groups, 2u);
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[1].prompt_index, 3u);
  EXPECT_EQ(drop_small_groups(for_validation, 0).groups, 1u) << "an empty one always";
  const std::vector<std::string> one = {"why"}, two = {"", "why"};
  EXPECT_EQ(dropped_text("generate step 3", dropped, one),
            "generate step 3: 9 of 16 samples are dropped, and 2 group(s) with too few left; why");
  EXPECT_EQ(dropped_text("x", {1, 4, 0}, two), "x: 1 of 4 samples are dropped; rank 1: why");
}

TEST(DroppedSamples, CountNowhereInValidation) {
  const std::vector<rollout::Group> groups = {group(0, 4, 0), group(1, 1, 3), group(2, 0, 4),
                                              group(3, 2, 2)};
  Metrics metrics;
  double reward = 0, accuracy = 0;
  summarize_validation(groups, metrics, reward, accuracy);
  EXPECT_DOUBLE_EQ(reward, (1 + 2 + 3 + 4 + 1 + 1 + 2) / 7.0);
  EXPECT_DOUBLE_EQ(accuracy, 3 / 7.0);
  EXPECT_DOUBLE_EQ(metrics.at("val-aux/s/reward/mean@4"), (2.5 + 1 + 1.5) / 3);
  EXPECT_DOUBLE_EQ(metrics.at("val-core/s/acc/pass@4"), 1) << "of the prompt that has four";
  EXPECT_DOUBLE_EQ(metrics.at("val-aux/s/acc/pass@2"), (0.5 + 1) / 2) << "of those that have two";
  for (const auto& [name, value] : metrics) {
    EXPECT_FALSE(name.ends_with("mean@1") || name.ends_with("mean@2") || name.ends_with("mean@3"))
        << name;
  }
}

}  // namespace
}  // namespace orrery::experiments
