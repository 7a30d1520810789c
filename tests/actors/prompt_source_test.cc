#include "actors/prompt_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <set>

#include "actors/actor.h"
#include "actors/envs/single_turn.h"
#include "core/error.h"
#include "tests/support/scratch.h"
#include "tests/support/weights.h"
#include "tests/text/tokenizer_fixtures.h"

namespace orrery::actors {
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

/// Items whose prompts are runs of digits: item i has length(i) of them. `count` 0:
/// endless.
class Digits : public Environment {
 public:
  explicit Digits(const std::vector<int>& lengths)
      : count_(lengths.size()), length_([lengths](uint64_t i) { return lengths[i]; }) {}
  explicit Digits(std::function<int(uint64_t)> length) : length_(std::move(length)) {}
  uint64_t size(Split) const override { return count_; }
  std::unique_ptr<Episode> reset(Split, uint64_t index) const override {
    return std::make_unique<SingleTurnEpisode>(
        std::string(static_cast<size_t>(length_(index)), '7'), "digits",
        [](const std::string&) { return StepResult{}; });
  }
  std::optional<Demonstration> demonstration(uint64_t) const override { return std::nullopt; }

 private:
  uint64_t count_ = 0;
  std::function<int(uint64_t)> length_;
};

class PromptLengths : public testing::Test {
 protected:
  PromptLengths() : tokenizer_(text::Tokenizer::load(quickstart_model())) {
    data_.set_max_prompt_length(8);
  }

  PromptSource source(const Environment& env, const PromptUse& use = {}, int threads = 1) const {
    CheckSetup setup;
    setup.ctx.threads = threads;
    return PromptSource(data_, env, tokenizer_, 1, setup, use);
  }
  std::string refusal(const Environment& env, const PromptUse& use = {}, int threads = 1) const {
    try {
      source(env, use, threads);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage) << "a restart does not mend data";
      return error.what();
    }
    return "no error";
  }
  static std::vector<uint64_t> items(const PromptSource& source, uint64_t begin, uint64_t end) {
    std::vector<uint64_t> found;
    for (uint64_t i = begin; i < end; ++i) found.push_back(source.train_prompt(i).item);
    return found;
  }

  const text::Tokenizer tokenizer_;
  proto::DataSection data_;
};

TEST_F(PromptLengths, RowsThatFitAreEachEpochsPermutation) {
  data_.set_on_error(proto::DataSection::SKIP);
  const Digits env({1, 2, 30, 4, 40});
  const PromptSource shuffled = source(env);
  EXPECT_EQ(shuffled.train_size(), 3u);
  for (uint64_t epoch = 0; epoch < 10; ++epoch)
    EXPECT_THAT(items(shuffled, 3 * epoch, 3 * epoch + 3), testing::UnorderedElementsAre(0, 1, 3));
  EXPECT_EQ(shuffled.train_prompt(0).tokens.front(), *tokenizer_.bos_id());
  EXPECT_EQ(shuffled.val_size(), 3u);
  EXPECT_EQ(shuffled.val_prompt(2).item, 3u);

  data_.set_shuffle(false);
  EXPECT_THAT(items(source(env), 0, 7), testing::ElementsAre(0, 1, 3, 0, 1, 3, 0));
  // As if the rows that do not fit had never been in the file.
  data_.set_shuffle(true);
  const std::vector<uint64_t> kept = {0, 1, 3};
  const Digits short_ones({1, 2, 4});
  const PromptSource without = source(short_ones);
  for (uint64_t i = 0; i < 12; ++i)
    EXPECT_EQ(shuffled.train_prompt(i).item, kept[without.train_prompt(i).item]) << i;
}

TEST_F(PromptLengths, WhereAllFitTheOrderIsThePermutation) {
  const Digits env({1, 2, 3, 4, 5, 6, 7});  // and a BOS: the limit itself fits
  for (const auto on_error : {proto::DataSection::FAIL, proto::DataSection::SKIP}) {
    data_.set_on_error(on_error);
    const PromptSource found = source(env);
    for (uint64_t i = 0; i < 21; ++i)
      EXPECT_EQ(found.train_prompt(i).item, permuted_index(1, i / 7, 7, i % 7)) << i;
  }
}

TEST_F(PromptLengths, ARowThatDoesNotFitIsRefusedBeforeTheFirstStep) {
  const Digits env({1, 2, 30, 4, 40});
  EXPECT_EQ(refusal(env),
            "training item 2: the prompt has 31 tokens, more than data.max_prompt_length 8; "
            "raise that or set data.on_error: skip to leave such training prompts out");
  EXPECT_THAT(refusal(env, {0, true}),
              testing::HasSubstr("held-out item 2: the prompt has 31 tokens"));
  EXPECT_EQ(refusal(env, {0, false}), "no error") << "nothing is asked for";
  data_.set_val_size(2);
  EXPECT_EQ(refusal(env, {0, true}), "no error") << "items 0 and 1 are all that is evaluated";

  data_.set_on_error(proto::DataSection::SKIP);
  EXPECT_EQ(refusal(Digits({30, 40})),
            "none of 2 training prompts can be used, the first because: training item 0: "
            "the prompt has 31 tokens, more than data.max_prompt_length 8");
  data_.set_val_size(2);
  const Digits few({30, 1, 40, 2, 3});
  const PromptSource found = source(few);
  EXPECT_EQ(found.val_size(), 2u) << "of those that fit";
  EXPECT_EQ(found.val_prompt(0).item, 1u);
  EXPECT_EQ(found.val_prompt(1).item, 3u);
}

TEST_F(PromptLengths, ThreadsChangeNothing) {
  std::vector<int> lengths(10000, 3);
  for (const size_t long_one : {2047u, 2048u, 5000u, 5001u, 9999u}) lengths[long_one] = 30;
  const Digits env(lengths);
  EXPECT_THAT(refusal(env, {}, 4), testing::HasSubstr("training item 2047: "));
  data_.set_on_error(proto::DataSection::SKIP);
  const PromptSource one = source(env), four = source(env, {}, 4);
  ASSERT_EQ(four.train_size(), 9995u);
  for (uint64_t i = 0; i < 20000; i += 7) {
    const uint64_t item = four.train_prompt(i).item;
    ASSERT_EQ(item, one.train_prompt(i).item);
    ASSERT_EQ(lengths[item], 3);
  }
}

/// What is generated has no end, so it cannot all be measured; nothing is drawn twice
/// all the same.
TEST_F(PromptLengths, AGeneratedPromptThatDoesNotFitIsReplacedByAnother) {
  const Digits some([](uint64_t item) { return item % 3 == 2 ? 30 : 1; });
  EXPECT_THAT(refusal(some), testing::HasSubstr("training item 2: the prompt has 31 tokens"));
  EXPECT_EQ(refusal(some, {2, false}), "no error") << "a run of two prompts";
  const Digits rare([](uint64_t item) { return item == 5000 ? 30 : 1; });
  const PromptSource strict = source(rare);
  EXPECT_EQ(strict.train_prompt(4999).item, 4999u);
  EXPECT_THROW(strict.train_prompt(5000), Error);

  data_.set_on_error(proto::DataSection::SKIP);
  const PromptSource found = source(some);
  EXPECT_EQ(found.train_size(), 0u);
  EXPECT_EQ(found.val_size(), 500u);
  const std::vector<uint64_t> drawn = items(found, 0, 3000);
  EXPECT_EQ(std::set<uint64_t>(drawn.begin(), drawn.end()).size(), drawn.size());
  for (uint64_t i = 0; i < drawn.size(); ++i) EXPECT_EQ(drawn[i] == i, i % 3 != 2);
  EXPECT_THROW(source(Digits([](uint64_t) { return 30; })), Error) << "not an endless search";
}

TEST_F(PromptLengths, ARowThatTheChatTemplateRefusesIsOneToo) {
  nlohmann::json json = testing_support::byte_level_tokenizer();
  json["post_processor"] = nullptr;
  const testing_support::TemporaryFolder folder;
  folder.write("tokenizer.json", json.dump());
  const auto load = [&](const char* chat_template) {
    folder.write("tokenizer_config.json", nlohmann::json{{"chat_template", chat_template}}.dump());
    return text::Tokenizer::load(folder.path());
  };
  data_.set_apply_chat_template(true);
  const Digits env({1, 3, 2});
  {
    const text::Tokenizer picky = load(
        "{% if messages[0].content == '777' %}{{ raise_exception('not three') }}{% endif %}{{ "
        "messages[0].content }}");
    EXPECT_THAT(
        testing_support::error_of([&] { PromptSource(data_, env, picky, 1); }),
        testing::AllOf(testing::StartsWith("training item 1: "), testing::HasSubstr("not three"),
                       testing::HasSubstr("data.on_error: skip")));
    data_.set_on_error(proto::DataSection::SKIP);
    EXPECT_EQ(PromptSource(data_, env, picky, 1).train_size(), 2u);
  }
  const text::Tokenizer silent =
      load("{% if messages[0].content != '77' %}{{ messages[0].content }}{% endif %}");
  EXPECT_EQ(PromptSource(data_, env, silent, 1).train_size(), 2u);
  data_.set_on_error(proto::DataSection::FAIL);
  EXPECT_THAT(testing_support::error_of([&] { PromptSource(data_, env, silent, 1); }),
              testing::StartsWith("training item 2: the prompt has no tokens"));
}

TEST_F(PromptLengths, APromptTemplateStandsAroundTheUserMessageOfAChat) {
  nlohmann::json json = testing_support::byte_level_tokenizer();
  json["post_processor"] = nullptr;
  const testing_support::TemporaryFolder folder;
  folder.write("tokenizer.json", json.dump());
  folder.write("tokenizer_config.json", nlohmann::json{{"chat_template", "folder's own"}}.dump());
  folder.write("t.jinja", "{% for m in messages %}{{ m.role[0] }}({{ m.content }}){% endfor %}");
  const text::Tokenizer tokenizer =
      text::Tokenizer::load(folder.path(), {.chat_template_file = folder.path() / "t.jinja"});
  EXPECT_EQ(tokenizer.chat_template_file(), (folder.path() / "t.jinja").string());
  data_.set_apply_chat_template(true);
  data_.set_prompt_template("1+{}=");
  data_.set_system_prompt("{}");
  data_.set_max_prompt_length(100);
  const Digits env({1, 3, 2});
  const PromptSource source(data_, env, tokenizer, 1);
  EXPECT_EQ(tokenizer.decode(source.val_prompt(1).tokens, false), "s({})u(1+777=)");
  EXPECT_EQ(source.longest(Split::kVal), static_cast<int64_t>(source.val_prompt(1).tokens.size()));
}

TEST(WithThousandsSeparators, PutsACommaBeforeThreeDigits) {
  EXPECT_EQ(with_thousands_separators(0), "0");
  EXPECT_EQ(with_thousands_separators(999), "999");
  EXPECT_EQ(with_thousands_separators(1000), "1,000");
  EXPECT_EQ(with_thousands_separators(7473000), "7,473,000");
}

TEST(PromptSource, TemplateHoldsThePromptOnce) {
  const text::Tokenizer tokenizer = text::Tokenizer::load(quickstart_model());
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

// What stands between two turns is what the template prints there, whether or not the
// policy has ended its own.
TEST(PromptSource, AnObservationIsTheUsersMessageInAChat) {
  struct Shape {
    const char* chat_template;
    const char* end;          // what ends a turn
    const char* between;      // with $ for that end, which is there unless the policy has said it
    const char* behind = "";  // a part of `between` that stands before the end
  };
  const std::vector<Shape> shapes = {
      {"{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' "
       "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
       "<|im_end|>", "\n<|im_start|>user\nwarmer<|im_end|>\n<|im_start|>assistant\n"},
      // Thoughts of earlier turns are left out, texts are trimmed.
      {"{% for m in messages %}{% if m.role == 'assistant' %}{{ 'A:' + "
       "m.content.split('</think>')[-1].strip() + '<eos>' }}{% else %}{{ 'U:' + m.content | trim + "
       "'\\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:{% endif %}",
       "<eos>", "U:warmer\nA:"},
      {"{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% "
       "else %}{{ ' ' + m.content + ' <eos>' }}{% endif %}{% endfor %}",
       "<eos>", "[INST] warmer [/INST]", " "}};
  for (const Shape& shape : shapes) {
    nlohmann::json json = testing_support::byte_level_tokenizer();
    json["normalizer"] = nullptr;
    json["post_processor"] = nullptr;
    json["added_tokens"] = nlohmann::json::array();
    int id = 300;
    for (const char* token : {"<eos>", "<|im_start|>", "<|im_end|>"})
      json["added_tokens"].push_back(
          testing_support::added_token(token, id++, {{"special", true}}));
    const testing_support::TemporaryFolder folder;
    folder.write("tokenizer.json", json.dump());
    folder.write(
        "tokenizer_config.json",
        nlohmann::json{{"chat_template", shape.chat_template}, {"eos_token", shape.end}}.dump());
    const text::Tokenizer tokenizer = text::Tokenizer::load(folder.path());
    proto::DataSection data;
    data.set_apply_chat_template(true);
    const Digits env({1});
    const PromptSource source(data, env, tokenizer, 1);
    const auto episode = env.reset(Split::kTrain, 0);
    const auto text = [&](std::optional<int32_t> said) {
      return tokenizer.decode(source.observation_tokens(*episode, "warmer", said), false);
    };
    EXPECT_EQ(text(tokenizer.eos_ids().front()), shape.between);
    const std::string whole = std::string(shape.behind) + shape.end + shape.between;
    EXPECT_EQ(text(std::nullopt), whole) << "the turn was ended by a stop string";
    EXPECT_EQ(text(301), whole) << "by another token";
    // The text that stands for the turn is no other's.
    EXPECT_THAT(
        tokenizer.decode(source.observation_tokens(*episode, "ORRERY-TURN", std::nullopt), false),
        testing::HasSubstr("ORRERY-TURN"));
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
      const std::vector<text::ChatMessage>& messages() const override { return messages_; }
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
      std::vector<text::ChatMessage> messages_;
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
      : tokenizer_(text::Tokenizer::load(quickstart_model())),
        model_(models::load_model_config(quickstart_model()), {}, DType::kF32) {
    testing_support::initialize_weights({}, model_, 3);
    model_.pack({});
    config_.n = 4;
    config_.seed = 9;
    config_.max_response_length = 20;
    // Ending on any digit makes turns short and sure to end.
    for (const char* token : {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}) {
      config_.stop_token_ids.push_back(*tokenizer_.token_to_id(token));
    }
  }

  std::vector<rollout::Group> run(const Environment& env) {
    proto::DataSection data;
    const PromptSource source(data, env, tokenizer_, 1);
    rollout::Engine engine({}, model_, &tokenizer_, {});
    Actor actor(engine, tokenizer_, env, source);
    LocalLeases leases(10, 13);
    actor.run(0, config_, leases);
    return leases.take();
  }

  text::Tokenizer tokenizer_;
  models::Transformer model_;
  ActorConfig config_;
};

TEST_F(Play, ObservationsAreMaskedAndArraysAgree) {
  const std::vector<rollout::Group> groups = run(TwoTurns(0.5f));
  ASSERT_EQ(groups.size(), 3u);
  int two_turns = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    EXPECT_EQ(groups[g].prompt_index, 10 + g);
    ASSERT_EQ(groups[g].samples.size(), 4u);
    for (const rollout::Trajectory& t : groups[g].samples) {
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
      if (const size_t at = text.find("+1="); masked == 3 && at != std::string::npos)
        text.erase(at, 3);
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
    EXPECT_NE(std::string(error.what()).find("is nan for prompt"), std::string::npos);
  }
}

}  // namespace
}  // namespace orrery::actors
