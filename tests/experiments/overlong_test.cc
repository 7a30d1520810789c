#include "experiments/overlong.h"

#include <gtest/gtest.h>

namespace orrery::experiments {
namespace {

TEST(OverlongPenalty, IsEquation13OfDapo) {
  proto::DataSection data;
  data.set_max_response_length(20);
  EXPECT_EQ(overlong_penalty(20, data), 0) << "off";
  data.mutable_overlong_buffer()->set_len(4);
  EXPECT_EQ(overlong_penalty(0, data), 0);
  EXPECT_EQ(overlong_penalty(16, data), 0) << "up to the buffer";
  EXPECT_EQ(overlong_penalty(17, data), -0.25f);
  EXPECT_EQ(overlong_penalty(20, data), -1);
  data.mutable_overlong_buffer()->set_penalty_factor(0.5);
  EXPECT_EQ(overlong_penalty(18, data), -0.25f) << "verl's factor";
}

rollout::Trajectory sample(int64_t tokens, float reward, rollout::FinishReason reason) {
  rollout::Trajectory t;
  t.tokens.resize(static_cast<size_t>(tokens));
  t.loss_mask.resize(t.tokens.size(), 1);
  t.reward = reward;
  t.finish_reason = reason;
  return t;
}

TEST(ShapedRewards, LosePenaltiesAndTheTokensOfWhatWasCutOff) {
  using rollout::FinishReason;
  rollout::Group group;
  group.samples = {sample(3, 1, FinishReason::kStop), sample(8, 1, FinishReason::kStop),
                   sample(8, 0, FinishReason::kLength), sample(5, 0, FinishReason::kLength)};
  learners::GroupRewards rewards;
  rewards.rewards = {1, 1, 0, 0};
  rewards.loss_tokens = {3, 8, 8, 5};
  proto::Config config;
  config.mutable_data()->set_max_response_length(8);
  learners::GroupRewards same = rewards;
  shape_rewards({&same, 1}, {&group, 1}, config);
  EXPECT_EQ(same.rewards, rewards.rewards);
  EXPECT_EQ(same.loss_tokens, rewards.loss_tokens);
  config.mutable_data()->mutable_overlong_buffer()->set_len(4);
  config.mutable_actor()->set_mask_truncated_completions(true);
  shape_rewards({&rewards, 1}, {&group, 1}, config);
  EXPECT_EQ(rewards.rewards, (std::vector<float>{1, 0, -1, -0.25f}));
  EXPECT_EQ(rewards.loss_tokens, (std::vector<int64_t>{3, 8, 0, 0}))
      << "at the response's or the model's last position";
  EXPECT_EQ(group.samples[1].reward, 1) << "as the environment gave it";
}

}  // namespace
}  // namespace orrery::experiments
