// What an actor does with rewards that are no numbers, and with an environment that
// takes its time.
#include "actors/actor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>

#include "core/error.h"
#include "models/config.h"
#include "tests/support/scratch.h"

namespace orrery::actors {
namespace {

using testing::HasSubstr;
using testing_support::error_of;

constexpr uint32_t kSamples = 4;

/// The same question again and again. Sample `bad_sample` of every group gets `bad` as
/// its reward, or as a part of it.
class Judge : public Environment {
 public:
  Judge(uint32_t bad_sample, double bad, bool part)
      : bad_sample_(bad_sample), bad_(bad), part_(part) {}
  uint64_t size(Split) const override { return 0; }
  std::unique_ptr<Episode> reset(Split, uint64_t) const override {
    const bool bad = samples_++ == bad_sample_;
    StepResult result;
    result.reward = bad && !part_ ? static_cast<float>(bad_) : 1.0f;
    result.extra["correct"] = bad && part_ ? bad_ : 1.0;
    return std::make_unique<Verdict>(std::move(result), samples_);
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  struct Verdict : Episode {
    Verdict(StepResult r, std::atomic<uint32_t>& samples)
        : result(std::move(r)), samples_(samples) {}
    const std::vector<text::ChatMessage>& messages() const override { return messages_; }
    /// Asked for by the prompt source: the episodes that come next are the samples.
    const std::string& prompt() const override {
      samples_ = 0;
      return prompt_;
    }
    const std::string& data_source() const override { return source_; }
    StepResult step(const std::string&) override { return result; }
    StepResult result;
    std::atomic<uint32_t>& samples_;
    std::vector<text::ChatMessage> messages_;
    std::string prompt_ = "1+1=", source_ = "judge";
  };
  uint32_t bad_sample_;
  double bad_;
  bool part_;
  mutable std::atomic<uint32_t> samples_{0};
};

TEST(Actor, RewardsThatAreNotFiniteEndTheRunWhereverTheyStand) {
  const std::string folder = ORRERY_SOURCE_DIR "/experiments/quickstart_model";
  const text::Tokenizer tokenizer = text::Tokenizer::load(folder);
  models::Transformer model(models::load_model_config(folder), {}, DType::kF32);
  models::initialize_parameters(model.config(), model.table(), 3, model.parameters());
  model.pack({});
  const proto::DataSection data;
  const double inf = std::numeric_limits<double>::infinity(),
               nan = std::numeric_limits<double>::quiet_NaN();
  const auto run = [&](uint32_t sample, double value, bool part, Split split) {
    const Judge env(sample, value, part);
    const PromptSource source(data, env, tokenizer, 1);
    rollout::Engine engine({}, model, &tokenizer, {});
    ActorConfig config;
    config.n = kSamples;
    config.split = split;
    config.max_response_length = 3;
    Actor actor(engine, tokenizer, env, source, config);
    LocalLeases leases(7, 8);
    actor.run(0, leases);
    return leases.take();
  };
  for (const Split split : {Split::kTrain, Split::kVal}) {
    EXPECT_EQ(run(0, 0.5, false, split).front().samples.front().reward, 0.5f);
    for (uint32_t sample = 0; sample < kSamples; ++sample) {
      for (const double bad : {nan, inf, -inf}) {
        const std::string place = " for prompt 7 sample " + std::to_string(sample);
        EXPECT_THAT(error_of([&] { run(sample, bad, false, split); }),
                    AllOf(HasSubstr("the reward of judge is "), HasSubstr(place)));
        EXPECT_THAT(error_of([&] { run(sample, bad, true, split); }),
                    AllOf(HasSubstr("the reward part 'correct' of judge is "), HasSubstr(place)));
      }
    }
  }
}

/// An environment outside: of each turn it decides when the answer comes, and what it
/// is.
class Outside : public Environment {
 public:
  struct Turn {
    uint64_t prompt = 0;
    uint32_t sample = 0;
    int turn = 0;
    std::string response;
  };
  /// Nothing: not yet. Called for each turn that waits, in every poll.
  using Answer = std::function<std::optional<StepResult>(const Turn&)>;

  explicit Outside(Answer answer) : answer_(std::move(answer)) {}
  uint64_t size(Split) const override { return 0; }
  std::unique_ptr<Episode> reset(Split split, uint64_t item) const override {
    return begin(split, item, {});
  }
  std::unique_ptr<Episode> begin(Split, uint64_t, const SampleId& id) const override {
    return std::make_unique<Asked>(*this, id);
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }
  bool poll(std::chrono::milliseconds) const override {
    ++polls;
    return true;
  }
  void cancel() const override { cancelled = true; }

  mutable int polls = 0;
  mutable bool cancelled = false;

 private:
  struct Asked : Episode {
    Asked(const Outside& e, const SampleId& id) : env(e) {
      turn.prompt = id.prompt_index;
      turn.sample = id.sample_index;
    }
    const std::vector<text::ChatMessage>& messages() const override { return messages_; }
    const std::string& prompt() const override { return prompt_; }
    const std::string& data_source() const override { return source_; }
    StepResult step(const std::string&) override { return {}; }
    void submit(const std::string& response, int64_t) override { turn.response = response; }
    std::optional<StepResult> try_result() override {
      auto result = env.answer_(turn);
      if (result) ++turn.turn;
      return result;
    }
    const Outside& env;
    Turn turn;
    std::vector<text::ChatMessage> messages_;
    std::string prompt_ = "1+1=", source_ = "outside";
  };
  Answer answer_;
};

/// Leases that can be told to stop.
class Stoppable : public LocalLeases {
 public:
  using LocalLeases::LocalLeases;
  bool stopping() override { return stop; }
  void poll() override {
    if (polled) polled();
  }
  bool stop = false;
  std::function<void()> polled;
};

class ActorOutside : public testing::Test {
 protected:
  ActorOutside()
      : tokenizer_(text::Tokenizer::load(kFolder)),
        model_(models::load_model_config(kFolder), {}, DType::kF32) {
    models::initialize_parameters(model_.config(), model_.table(), 3, model_.parameters());
    model_.pack({});
  }
  std::vector<rollout::Group> run(const Outside& env, Stoppable& leases, int64_t max_groups = 0) {
    const PromptSource source(data_, env, tokenizer_, 1);
    rollout::Engine engine({}, model_, &tokenizer_, {});
    ActorConfig config;
    config.n = kSamples;
    config.max_response_length = 12;
    config.max_groups = max_groups;
    config.stop_token_ids = tokenizer_.eos_ids();
    Actor actor(engine, tokenizer_, env, source, config);
    actor.run(0, leases);
    EXPECT_FALSE(engine.has_work());
    return leases.take();
  }
  static StepResult reward(float value) {
    StepResult result;
    result.reward = value;
    return result;
  }

  static constexpr const char* kFolder = ORRERY_SOURCE_DIR "/experiments/quickstart_model";
  text::Tokenizer tokenizer_;
  models::Transformer model_;
  proto::DataSection data_;
};

TEST_F(ActorOutside, SamplesThatWaitMakeRoomAndTheirOrderChangesNothing) {
  // At once, or each prompt only when the last has been asked for; with one observation
  // in between.
  const auto generate = [&](bool late) {
    uint64_t newest = 0;
    int64_t asked = 0;
    const Outside env([&](const Outside::Turn& turn) -> std::optional<StepResult> {
      newest = std::max(newest, turn.prompt);
      const int wait = static_cast<int>((turn.prompt * 7 + turn.sample * 3) % 5);
      if (late && (newest < 7 || asked++ % 5 < wait)) return std::nullopt;
      if (turn.turn == 0 && turn.sample % 2 == 0) {
        StepResult more;
        more.done = false;
        more.observation = "+";
        return more;
      }
      return reward(static_cast<float>(turn.response.size()));
    });
    Stoppable leases(0, 8);
    return run(env, leases, /*max_groups=*/1);
  };
  const std::vector<rollout::Group> soon = generate(false), late = generate(true);
  ASSERT_EQ(soon.size(), 8u);
  ASSERT_EQ(late.size(), 8u);
  bool any_turn = false;
  for (size_t g = 0; g < soon.size(); ++g) {
    EXPECT_EQ(rollout::group_to_proto(soon[g]).SerializeAsString(),
              rollout::group_to_proto(late[g]).SerializeAsString())
        << g;
    for (const rollout::Trajectory& t : soon[g].samples)
      any_turn = any_turn || std::count(t.loss_mask.begin(), t.loss_mask.end(), 0) > 0;
  }
  EXPECT_TRUE(any_turn);
}

TEST_F(ActorOutside, DroppedSamplesAreMissingAndCounted) {
  const Outside env([&](const Outside::Turn& turn) {
    StepResult result = reward(1);
    result.dropped = turn.prompt == 2 || (turn.prompt == 1 && turn.sample == 1);
    return result;
  });
  Stoppable leases(0, 3);
  const std::vector<rollout::Group> groups = run(env, leases);
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].dropped, 0u);
  EXPECT_EQ(groups[1].dropped, 1u);
  ASSERT_EQ(groups[1].samples.size(), kSamples - 1);
  EXPECT_EQ(groups[1].samples[1].sample_index, 2u);
  EXPECT_EQ(groups[2].dropped, kSamples);
  EXPECT_TRUE(groups[2].samples.empty());
  // They travel so.
  EXPECT_EQ(rollout::group_from_proto(rollout::group_to_proto(groups[1])).dropped, 1u);
  EXPECT_TRUE(rollout::group_from_proto(rollout::group_to_proto(groups[2])).samples.empty());
}

TEST_F(ActorOutside, WhatIsInHandIsDroppedWhenTheJobIsToStop) {
  const Outside env(
      [&](const Outside::Turn&) -> std::optional<StepResult> { return std::nullopt; });
  Stoppable leases(0, 4);
  leases.polled = [&] { leases.stop = env.polls > 20; };  // while all wait
  EXPECT_TRUE(run(env, leases).empty());
  EXPECT_TRUE(env.cancelled);
  const Outside idle(
      [&](const Outside::Turn&) -> std::optional<StepResult> { return std::nullopt; });
  Stoppable generating(0, 4);
  int steps = 0;
  generating.polled = [&] { generating.stop = ++steps == 3; };  // while the engine works
  EXPECT_TRUE(run(idle, generating).empty());
}

}  // namespace
}  // namespace orrery::actors
