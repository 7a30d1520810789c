#include "rollout/trajectory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "core/error.h"
#include "tests/rollout/make_group.h"

namespace orrery::rollout {
namespace {

using testing::HasSubstr;
using testing_support::expect_equal;
using testing_support::make_group;

TEST(Trajectory, SurvivesTheWire) {
  for (const uint32_t samples : {0u, 1u, 5u}) {
    const Group group = make_group(12, 1000, samples);
    std::string bytes;
    ASSERT_TRUE(group_to_proto(group).SerializeToString(&bytes));
    proto::Group message;
    ASSERT_TRUE(message.ParseFromString(bytes));
    expect_equal(group_from_proto(message), group);
  }
}

TEST(Trajectory, NamesFinishReasons) {
  EXPECT_STREQ(finish_reason_name(FinishReason::kStop), "stop");
  EXPECT_STREQ(finish_reason_name(FinishReason::kLength), "length");
  EXPECT_STREQ(finish_reason_name(FinishReason::kAbort), "abort");
}

struct BadCase {
  const char* field;
  std::function<void(proto::Trajectory&)> spoil;
};

TEST(Trajectory, RejectsMessagesThatLie) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<BadCase> cases = {
      {"logprobs has", [](proto::Trajectory& t) { t.add_logprobs(0); }},
      {"entropies has", [](proto::Trajectory& t) { t.mutable_entropies()->RemoveLast(); }},
      {"loss_mask has", [](proto::Trajectory& t) { t.clear_loss_mask(); }},
      {"weight_versions has", [](proto::Trajectory& t) { t.add_weight_versions(1); }},
      {"logprobs has", [](proto::Trajectory& t) { t.add_tokens(1); }},
      {"prompt_tokens is empty", [](proto::Trajectory& t) { t.clear_prompt_tokens(); }},
      {"prompt_tokens[1]", [](proto::Trajectory& t) { t.set_prompt_tokens(1, -1); }},
      {"tokens[0] is -5", [](proto::Trajectory& t) { t.set_tokens(0, -5); }},
      {"logprobs[0]", [nan](proto::Trajectory& t) { t.set_logprobs(0, nan); }},
      {"entropies[0]", [inf](proto::Trajectory& t) { t.set_entropies(0, inf); }},
      {"reward is", [nan](proto::Trajectory& t) { t.set_reward(nan); }},
      {"reward is", [inf](proto::Trajectory& t) { t.set_reward(-inf); }},
      {"reward_extra.part is",
       [nan](proto::Trajectory& t) { (*t.mutable_reward_extra())["part"] = nan; }},
      {"finish_reason is \"done\"", [](proto::Trajectory& t) { t.set_finish_reason("done"); }},
      {"fingerprint is \"f64-chain/1\": it must be class/version, with class f32-chain or "
       "pairs",
       [](proto::Trajectory& t) { t.set_fingerprint("f64-chain/1"); }},
      {"prompt_index is 3", [](proto::Trajectory& t) { t.set_prompt_index(3); }},
      {"they must rise", [](proto::Trajectory& t) { t.set_sample_index(0); }},
  };
  for (const BadCase& bad : cases) {
    proto::Group message = group_to_proto(make_group(1, 7, 3));
    bad.spoil(*message.mutable_samples(1));
    try {
      group_from_proto(message);
      FAIL() << bad.field << " was accepted";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(bad.field));
      EXPECT_THAT(error.what(), HasSubstr("prompt 7"));
    }
  }
}

}  // namespace
}  // namespace orrery::rollout
