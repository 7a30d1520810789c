#include "actors/prompt_source.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "actors/actor.h"
#include "actors/envs/single_turn.h"
#include "core/error.h"

namespace orrery {
namespace {

std::filesystem::path quickstart_model() {
  return std::filesystem::path(ORRERY_SOURCE_DIR) / "experiments/quickstart_model";
}

TEST(Permutation, IsOneForEverySizeAndDiffersByEpoch) {
  for (const uint64_t size : {1u, 2u, 3u, 7u, 1000u, 65539u}) {
    std::vector<bool> seen(size, false);
    uint64_t moved = 0;
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t at = permuted_index(5, 0, size, i);
      ASSERT_LT(at, size);
      EXPECT_FALSE(seen[at]);
      seen[at] = true;
      moved += at != permuted_index(5, 1, size, i) ? 1 : 0;
    }
    if (size >= 1000) {
      EXPECT_GT(moved, size / 2);
    }
  }
}

/// Items whose prompts are runs of digits: item i has lengths[i] of them.
class Digits : public Environment {
 public:
  explicit Digits(std::vector<int> lengths) : lengths_(std::move(lengths)) {}
  uint64_t size(Split) const override { return lengths_.size(); }
  std::unique_ptr<Episode> reset(Split, uint64_t index) const override {
    return std::make_unique<SingleTurnEpisode>(std::string(static_cast<size_t>(lengths_[index]), '7'),
                                               "digits", [](const std::string&) { return StepResult{}; });
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  std::vector<int> lengths_;
};

TEST(PromptSource, WalksEpochsAndHandlesLongPrompts) {
  const Tokenizer tokenizer = Tokenizer::load(quickstart_model());
  const Digits env({1, 2, 30, 4});
  proto::DataSection data;
  data.set_max_prompt_length(8);
  data.set_on_error(proto::DataSection::SKIP);
  const PromptSource source(data, env, tokenizer, 1);
  for (uint64_t i = 0; i < 40; ++i) {
    const Prompt prompt = source.train_prompt(i);
    EXPECT_NE(prompt.item, 2u) << "the long one is passed over";
    EXPECT_EQ(prompt.tokens, source.train_prompt(i).tokens);
    EXPECT_EQ(prompt.tokens.front(), *tokenizer.bos_id());
  }
  EXPECT_EQ(source.val_size(), 4u);
  EXPECT_THROW(source.val_prompt(2), Error);

  data.set_on_error(proto::DataSection::FAIL);
  EXPECT_THROW(
      {
        for (uint64_t i = 0; i < 4; ++i) source.train_prompt(i);
      },
      Error);
  const Digits all_long({30, 30});
  data.set_on_error(proto::DataSection::SKIP);
  const PromptSource hopeless(data, all_long, tokenizer, 1);
  EXPECT_THROW(hopeless.train_prompt(0), Error) << "not an endless search";
}

TEST(PromptSource, TemplateHoldsThePromptOnce) {
  const Tokenizer tokenizer = Tokenizer::load(quickstart_model());
  const Digits env({1});
  proto::DataSection data;
  data.set_prompt_template("1+{}=");
  const PromptSource source(data, env, tokenizer, 1);
  EXPECT_EQ(tokenizer.decode(source.val_prompt(0).tokens, true), "1+7=");
  for (const char* bad : {"", "x", "{}{}"}) {
    proto::DataSection wrong;
    wrong.set_prompt_template(bad);
    EXPECT_THROW(PromptSource(wrong, env, tokenizer, 1), Error) << bad;
  }
}

/// Two turns: the first answer is met with "+1=", the second is rewarded by its length.
class TwoTurns : public Environment {
 public:
  explicit TwoTurns(float reward) : reward_(reward) {}
  uint64_t size(Split) const override { return 0; }
  std::unique_ptr<Episode> reset(Split, uint64_t) const override {
    struct Play : Episode {
      explicit Play(float r) : reward(r) {}
      const std::vector<ChatMessage>& messages() const override { return messages_; }
      const std::string& prompt() const override { return prompt_; }
      const std::string& data_source() const override { return source_; }
      StepResult step(const std::string&) override {
        StepResult result;
        result.done = ++turn == 2;
        result.observation = "+1=";
        result.reward = reward;
        return result;
      }
      float reward;
      int turn = 0;
      std::vector<ChatMessage> messages_;
      std::string prompt_ = "1+1=", source_ = "two_turns";
    };
    return std::make_unique<Play>(reward_);
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  float reward_;
};

class Play : public testing::Test {
 protected:
  Play()
      : tokenizer_(Tokenizer::load(quickstart_model())),
        model_(load_model_config(quickstart_model()), {}, DType::kF32) {
    initialize_parameters(model_.config(), model_.table(), 3, model_.parameters());
    model_.pack({});
    config_.n = 4;
    config_.seed = 9;
    config_.max_response_length = 20;
    // Ending on any digit makes turns short and sure to end.
    for (const char* token : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
      config_.stop_token_ids.push_back(*tokenizer_.token_to_id(token));
    }
  }

  std::vector<Group> run(const Environment& env) {
    proto::DataSection data;
    const PromptSource source(data, env, tokenizer_, 1);
    Engine engine({}, model_, &tokenizer_, {});
    Actor actor(engine, tokenizer_, env, source, config_);
    LocalLeases leases(10, 13);
    actor.run(0, leases);
    return leases.take();
  }

  Tokenizer tokenizer_;
  Transformer model_;
  ActorConfig config_;
};

TEST_F(Play, ObservationsAreMaskedAndArraysAgree) {
  const std::vector<Group> groups = run(TwoTurns(0.5f));
  ASSERT_EQ(groups.size(), 3u);
  int two_turns = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    EXPECT_EQ(groups[g].prompt_index, 10 + g);
    ASSERT_EQ(groups[g].samples.size(), 4u);
    for (const Trajectory& t : groups[g].samples) {
      EXPECT_EQ(t.logprobs.size(), t.tokens.size());
      EXPECT_EQ(t.entropies.size(), t.tokens.size());
      EXPECT_EQ(t.loss_mask.size(), t.tokens.size());
      EXPECT_EQ(t.weight_versions.size(), t.tokens.size());
      EXPECT_LE(t.tokens.size(), 20u);
      EXPECT_EQ(t.reward, 0.5f);
      const auto masked = std::count(t.loss_mask.begin(), t.loss_mask.end(), uint8_t{0});
      EXPECT_TRUE(masked == 0 || masked == 3) << "the observation has three tokens";
      two_turns += masked == 3 ? 1 : 0;
      // The digits end turns, so none of them is text.
      std::string text = t.response_text;
      if (const size_t at = text.find("+1="); masked == 3 && at != std::string::npos) text.erase(at, 3);
      EXPECT_EQ(text.find_first_of("0123456789"), std::string::npos) << t.response_text;
    }
  }
  EXPECT_GT(two_turns, 6);
}

TEST_F(Play, NanRewardNamesTheSample) {
  try {
    run(TwoTurns(std::nanf("")));
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("two_turns"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("NaN"), std::string::npos);
  }
}

}  // namespace
}  // namespace orrery
