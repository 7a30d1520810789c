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
#include "tests/support/weights.h"

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
  testing_support::initialize_weights({}, model, 3);
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
    Actor actor(engine, tokenizer, env, source);
    LocalLeases leases(7, 8);
    actor.run(0, config, leases);
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
    testing_support::initialize_weights({}, model_, 3);
    model_.pack({});
    config_.n = kSamples;
    config_.max_response_length = 12;
    config_.stop_token_ids = tokenizer_.eos_ids();
  }
  std::vector<rollout::Group> run(const Outside& env, LocalLeases& leases, int64_t max_groups = 0) {
    const PromptSource source(data_, env, tokenizer_, 1);
    rollout::Engine engine({}, model_, &tokenizer_, engine_);
    config_.max_groups = max_groups;
    Actor actor(engine, tokenizer_, env, source);
    actor.run(0, config_, leases);
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
  rollout::EngineConfig engine_;
  ActorConfig config_;
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

/// Leases that give prompts out from the last to the first, and count those in hand.
class BackwardLeases : public LocalLeases {
 public:
  BackwardLeases(uint64_t begin, uint64_t end) : LocalLeases(begin, end), sum_(begin + end - 1) {}
  std::optional<uint64_t> try_lease() override {
    const std::optional<uint64_t> prompt = LocalLeases::try_lease();
    if (!prompt) return std::nullopt;
    most_in_hand = std::max(most_in_hand, ++in_hand_);
    return sum_ - *prompt;
  }
  void deliver(rollout::Group group) override {
    --in_hand_;
    delivered.push_back(group.prompt_index);
    LocalLeases::deliver(std::move(group));
  }
  int64_t most_in_hand = 0;
  std::vector<uint64_t> delivered;

 private:
  uint64_t sum_;
  int64_t in_hand_ = 0;
};

void expect_same(const std::vector<rollout::Group>& a, const std::vector<rollout::Group>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t g = 0; g < a.size(); ++g) {
    EXPECT_EQ(group_to_proto(a[g]).SerializeAsString(), group_to_proto(b[g]).SerializeAsString())
        << g;
  }
}

/// At once, by the length of the response; even samples after one observation.
std::optional<StepResult> by_length(const Outside::Turn& turn) {
  StepResult result;
  result.done = turn.turn > 0 || turn.sample % 2 != 0;
  if (result.done) {
    result.reward = static_cast<float>(turn.response.size());
  } else {
    result.observation = "+";
  }
  return result;
}

TEST_F(ActorOutside, WhichPromptComesFirstChangesNoSample) {
  const Outside env(by_length);
  LocalLeases forward(3, 9);
  BackwardLeases backward(3, 9);
  const std::vector<rollout::Group> expected = run(env, forward, /*max_groups=*/6);
  expect_same(run(env, backward, /*max_groups=*/2), expected);
  EXPECT_NE(backward.delivered.front(), 3u);
}

TEST_F(ActorOutside, NoMoreGroupsAreInTheEngineThanItMayHave) {
  const Outside env([](const Outside::Turn& turn) { return std::optional(reward(turn.prompt)); });
  for (const int64_t most : {1, 3}) {
    BackwardLeases leases(0, 8);
    EXPECT_EQ(run(env, leases, most).size(), 8u);
    EXPECT_EQ(leases.most_in_hand, most);
  }
  BackwardLeases leases(0, 8);
  engine_.max_num_seqs = int64_t{2} * kSamples + 1;  // as many as fill its places, kSamples each
  run(env, leases, /*max_groups=*/0);
  EXPECT_EQ(leases.most_in_hand, 2);
}

TEST_F(ActorOutside, AnEpisodeOfSeveralTurnsIsOneSample) {
  constexpr int kTurns = 3;
  const Outside env([](const Outside::Turn& turn) {
    StepResult result = reward(static_cast<float>(turn.turn));
    result.done = turn.turn == kTurns - 1;
    if (!result.done) result.observation = "+";
    return std::optional(result);
  });
  // Ending on any digit makes turns short, so that several fit.
  for (const char* token : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"})
    config_.stop_token_ids.push_back(*tokenizer_.token_to_id(token));
  config_.max_response_length = 7;
  LocalLeases leases(0, 6);
  int whole = 0, cut = 0;
  for (const rollout::Group& group : run(env, leases)) {
    for (const rollout::Trajectory& t : group.samples) {
      ASSERT_EQ(t.loss_mask.size(), t.tokens.size());
      EXPECT_LE(t.tokens.size(), 7u);
      int observations = 0;
      for (size_t i = 0; i < t.tokens.size(); ++i) {
        if (t.loss_mask[i] != 0) continue;
        ++observations;
        EXPECT_EQ(t.logprobs[i], 0.0f);
        EXPECT_GT(i, 0u) << "an observation comes after a turn";
      }
      // A turn that was cut, or an observation for which no room was left, ends the
      // episode with the reward so far.
      EXPECT_EQ(t.reward, static_cast<float>(observations));
      (observations == kTurns - 1 ? whole : cut) += 1;
    }
  }
  EXPECT_GT(whole, 0);
  EXPECT_GT(cut, 0);
}

TEST_F(ActorOutside, SamplesFromAnyIndexOnAreThoseOfThatIndex) {
  const Outside env(by_length);  // of even samples in two turns
  LocalLeases whole(0, 3), rest(0, 3);
  const std::vector<rollout::Group> all = run(env, whole);
  config_.n = kSamples - 1;
  config_.first_sample = 1;
  const std::vector<rollout::Group> later = run(env, rest);
  ASSERT_EQ(later.size(), all.size());
  for (size_t g = 0; g < all.size(); ++g) {
    rollout::Group expected = all[g];
    expected.samples.erase(expected.samples.begin());
    EXPECT_EQ(rollout::group_to_proto(later[g]).SerializeAsString(),
              rollout::group_to_proto(expected).SerializeAsString());
  }
}

TEST_F(ActorOutside, OneActorServesBatchesOfEveryKindAsANewOneWould) {
  const Outside env(by_length);
  const PromptSource source(data_, env, tokenizer_, 1);
  rollout::Engine engine({}, model_, &tokenizer_, {});
  Actor lasting(engine, tokenizer_, env, source);
  ActorConfig greedy = config_;
  greedy.split = Split::kVal;
  greedy.n = 1;
  greedy.sampling.temperature = 0;
  greedy.max_response_length = 9;
  const auto samples = [](Actor& actor, uint64_t step, const ActorConfig& config) {
    LocalLeases leases(step, step + 3);
    actor.run(step, config, leases);
    return leases.take();
  };
  for (uint64_t step = 0; step < 3; ++step) {
    for (const ActorConfig& config : {config_, greedy}) {
      rollout::Engine another({}, model_, &tokenizer_, {});
      Actor fresh(another, tokenizer_, env, source);
      expect_same(samples(lasting, step, config), samples(fresh, step, config));
    }
  }
}

TEST_F(ActorOutside, ARunThatWasStoppedOrFailedLeavesNothingToTheNext) {
  bool answers = false, bad = false;
  const Outside env([&](const Outside::Turn& turn) -> std::optional<StepResult> {
    if (!answers) return std::nullopt;
    StepResult result = by_length(turn).value();
    if (bad && turn.prompt == 2) result.reward = std::numeric_limits<float>::quiet_NaN();
    return result;
  });
  const PromptSource source(data_, env, tokenizer_, 1);
  rollout::Engine engine({}, model_, &tokenizer_, {});
  Actor actor(engine, tokenizer_, env, source);
  Stoppable stopped(0, 4);
  stopped.polled = [&] { stopped.stop = env.polls > 20; };
  actor.run(0, config_, stopped);
  EXPECT_TRUE(stopped.take().empty());
  answers = bad = true;
  LocalLeases failing(0, 4);
  EXPECT_THAT(error_of([&] { actor.run(0, config_, failing); }), HasSubstr("for prompt 2 sample"));
  bad = false;
  LocalLeases again(0, 4), expected(0, 4);
  actor.run(0, config_, again);
  EXPECT_FALSE(engine.has_work());
  expect_same(again.take(), run(env, expected));
}

}  // namespace
}  // namespace orrery::actors
