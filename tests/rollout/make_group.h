// Groups with every field set, and their comparison.
#pragma once

#include <gtest/gtest.h>

#include "rollout/trajectory.h"

namespace orrery::testing_support {

inline rollout::Group make_group(uint64_t step, uint64_t prompt_index, uint32_t samples) {
  rollout::Group group{step, prompt_index, {}};
  for (uint32_t s = 0; s < samples; ++s) {
    rollout::Trajectory t;
    t.step = step;
    t.prompt_index = prompt_index;
    t.sample_index = s;
    t.prompt_tokens = {1, static_cast<int32_t>(prompt_index % 100), 3};
    for (uint32_t i = 0; i < 2 + s; ++i) {
      t.tokens.push_back(static_cast<int32_t>(10 * s + i));
      t.logprobs.push_back(-0.1f * static_cast<float>(i + 1));
      t.entropies.push_back(1.0f / static_cast<float>(i + 3));
      t.loss_mask.push_back(i % 2 == 0 ? 1 : 0);
      t.weight_versions.push_back((uint64_t{1} << 40) + i);
    }
    t.reward = 0.25f * static_cast<float>(s) - 0.5f;
    t.finish_reason = static_cast<rollout::FinishReason>(s % 3);
    t.data_source = "arithmetic";
    t.fingerprint = {s % 2 == 0 ? "f32-chain" : "pairs", 7};
    t.device = s < 2 ? "cpu" : "debug";
    t.reward_extra["accuracy"] = 0.5 * s;
    if (s == 1) t.reward_extra["format/strict"] = -1;
    t.response_text = "the answer is 4\xC3\xA9\n#### " + std::to_string(s);
    if (s != 1) {
      t.truth = "4\xC3\xA9";
      t.data_file = "data/rows.jsonl";
      t.data_row = 17 + s;
    }
    group.samples.push_back(t);
  }
  return group;
}

inline void expect_equal(const rollout::Group& a, const rollout::Group& b) {
  EXPECT_EQ(a.step, b.step);
  EXPECT_EQ(a.prompt_index, b.prompt_index);
  EXPECT_EQ(a.dropped, b.dropped);
  ASSERT_EQ(a.samples.size(), b.samples.size());
  for (size_t i = 0; i < a.samples.size(); ++i) {
    const rollout::Trajectory &x = a.samples[i], &y = b.samples[i];
    EXPECT_EQ(x.step, y.step);
    EXPECT_EQ(x.prompt_index, y.prompt_index);
    EXPECT_EQ(x.sample_index, y.sample_index);
    EXPECT_EQ(x.prompt_tokens, y.prompt_tokens);
    EXPECT_EQ(x.tokens, y.tokens);
    EXPECT_EQ(x.logprobs, y.logprobs);
    EXPECT_EQ(x.entropies, y.entropies);
    EXPECT_EQ(x.loss_mask, y.loss_mask);
    EXPECT_EQ(x.weight_versions, y.weight_versions);
    EXPECT_EQ(x.reward, y.reward);
    EXPECT_EQ(x.finish_reason, y.finish_reason);
    EXPECT_EQ(x.data_source, y.data_source);
    EXPECT_EQ(x.fingerprint, y.fingerprint);
    EXPECT_EQ(x.device, y.device);
    EXPECT_EQ(x.reward_extra, y.reward_extra);
    EXPECT_EQ(x.response_text, y.response_text);
    EXPECT_EQ(x.truth, y.truth);
    EXPECT_EQ(x.data_file, y.data_file);
    EXPECT_EQ(x.data_row, y.data_row);
  }
}

}  // namespace orrery::testing_support
