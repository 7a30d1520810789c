#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "actors/envs/arithmetic.h"
#include "actors/envs/constraint.h"
#include "actors/envs/gsm8k.h"
#include "actors/jsonl.h"
#include "core/error.h"
#include "tests/support/assets.h"
#include "tests/support/scratch.h"

namespace orrery::actors {
namespace {

using testing_support::error_of;

float reward(const Environment& env, Split split, uint64_t index, const std::string& response) {
  return env.reset(split, index)->step(response).reward;
}

TEST(Arithmetic, ItemsAreFunctionsOfSeedSplitAndIndexAndSplitsAreDisjoint) {
  for (const int digits : {1, 2}) {
    proto::ArithmeticSection config;
    config.set_digits(digits);
    const auto env = make_arithmetic(config, 3), same = make_arithmetic(config, 3),
               other = make_arithmetic(config, 4);
    std::set<std::string> train, held_out;
    int differ = 0;
    for (uint64_t i = 0; i < 1000; ++i) {
      const std::string prompt = env->reset(Split::kTrain, i)->prompt();
      EXPECT_EQ(prompt, same->reset(Split::kTrain, i)->prompt());
      differ += prompt != other->reset(Split::kTrain, i)->prompt() ? 1 : 0;
      train.insert(prompt);
      held_out.insert(env->reset(Split::kVal, i)->prompt());
    }
    EXPECT_GT(differ, 800);
    EXPECT_GT(held_out.size(), 5u);
    for (const std::string& prompt : held_out) EXPECT_FALSE(train.contains(prompt)) << prompt;
  }
}

TEST(Arithmetic, RewardsTheRightAnswerAlone) {
  for (const auto operation :
       {proto::ArithmeticSection::ADD, proto::ArithmeticSection::SUBTRACT,
        proto::ArithmeticSection::MULTIPLY, proto::ArithmeticSection::MIXED}) {
    for (const bool zero_pad : {true, false}) {
      for (const bool words : {true, false}) {
        proto::ArithmeticSection config;
        config.set_operation(operation);
        config.set_zero_pad(zero_pad);
        config.set_question_in_words(words);
        const auto env = make_arithmetic(config, 1);
        for (uint64_t i = 0; i < 50; ++i) {
          const auto right = env->demonstration(i);
          ASSERT_TRUE(right);
          EXPECT_EQ(right->prompt, env->reset(Split::kTrain, i)->prompt());
          EXPECT_EQ(right->response, env->reset(Split::kTrain, i)->truth());
          EXPECT_EQ(reward(*env, Split::kTrain, i, right->response), 1.0f)
              << right->prompt << right->response;
          EXPECT_EQ(reward(*env, Split::kTrain, i, right->response + "1"), 0.0f);
          EXPECT_EQ(reward(*env, Split::kTrain, i, ""), 0.0f);
        }
      }
    }
  }
}

TEST(Arithmetic, FlawedDemonstrationsForgetEveryCarry) {
  proto::ArithmeticSection config;
  config.set_flawed_fraction(0.7);
  const auto env = make_arithmetic(config, 1);
  int wrong = 0, with_carry = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const Demonstration d = *env->demonstration(i);
    ASSERT_EQ(d.prompt.size(), 6u);
    ASSERT_EQ(d.response.size(), 3u);
    const int a = std::stoi(d.prompt.substr(0, 2)), b = std::stoi(d.prompt.substr(3, 2)),
              answer = std::stoi(d.response);
    const int without = (a / 10 + b / 10) % 10 * 10 + (a % 10 + b % 10) % 10;
    EXPECT_TRUE(answer == a + b || answer == without) << d.prompt << d.response;
    with_carry += a + b != without ? 1 : 0;
    wrong += answer != a + b ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(wrong) / with_carry, 0.7, 0.05);
}

TEST(Constraint, ScoresWordsLengthAndEnding) {
  proto::ConstraintSection config;
  for (const char* word : {"dog", "Ball"}) config.add_words(word);
  config.set_words_per_prompt(2);
  config.set_fixed_words(true);
  config.add_prompts("Use {words}:");
  const auto env = make_constraint(config, 1);
  EXPECT_EQ(env->reset(Split::kTrain, 0)->prompt(), "Use dog and Ball:");
  EXPECT_EQ(reward(*env, Split::kTrain, 0, "The DOG has a ball."), 1.0f);
  EXPECT_EQ(reward(*env, Split::kTrain, 0, "dogs like balls"), 0.0f) << "whole words only";
  EXPECT_EQ(reward(*env, Split::kTrain, 0, "a dog"), 0.5f);
  config.set_min_words(3);
  config.set_max_words(4);
  config.set_ending("End");
  const auto strict = make_constraint(config, 1);
  EXPECT_EQ(reward(*strict, Split::kTrain, 0, "dog ball End\n"), 1.0f);
  EXPECT_NEAR(reward(*strict, Split::kTrain, 0, "dog ball one two End"), 2.0 / 3, 1e-6);
  EXPECT_EQ(strict->reset(Split::kTrain, 0)->step("dog ball x End").extra.at("correct"), 1);
}

TEST(Constraint, DrawsDifferentWordsAndRefusesNonsense) {
  proto::ConstraintSection config;
  const auto env = make_constraint(config, 1);
  std::set<std::string> prompts;
  for (uint64_t i = 0; i < 50; ++i) prompts.insert(env->reset(Split::kTrain, i)->prompt());
  EXPECT_GT(prompts.size(), 1u);
  config.set_words_per_prompt(100);
  EXPECT_NE(error_of([&] { make_constraint(config, 1); }).find("words_per_prompt"),
            std::string::npos);
  config.set_words_per_prompt(0);
  EXPECT_NE(error_of([&] { make_constraint(config, 1); }).find("asks for nothing"),
            std::string::npos);
}

/// The names of a result's parts.
std::vector<std::string> parts(const Environment& env) {
  std::vector<std::string> names;
  for (const auto& [name, value] : env.reset(Split::kTrain, 0)->step("x").extra)
    names.push_back(name);
  return names;
}

TEST(Environments, KnowThePartsOfTheirRewards) {
  const auto arithmetic = make_arithmetic({}, 1);
  EXPECT_EQ(arithmetic->reward_parts(), parts(*arithmetic));
  proto::ConstraintSection words, rest;
  rest.set_words_per_prompt(0);
  rest.set_max_words(5);
  rest.set_ending("End");
  for (const auto& config : {words, rest}) {
    const auto constraint = make_constraint(config, 1);
    EXPECT_EQ(constraint->reward_parts(), parts(*constraint));
  }
}

class Rows : public testing::Test {
 protected:
  proto::DataSection data(const std::string& contents, bool skip = false) {
    const auto path = folder_ / "rows.jsonl";
    std::ofstream(path, std::ios::binary) << contents;
    proto::DataSection section;
    section.set_env(proto::DataSection::GSM8K);
    section.add_train_files(path.string());
    section.set_on_error(skip ? proto::DataSection::SKIP : proto::DataSection::FAIL);
    return section;
  }
  const testing_support::ScratchFolder scratch_;
  const std::filesystem::path folder_ = scratch_.path();
};

constexpr const char* kGood = "{\"question\": \"1+1?\", \"answer\": \"<<1+1=2>>two #### 2\"}\n";

TEST_F(Rows, BothLayouts) {
  const auto env = make_gsm8k(
      data(std::string(kGood) +
           R"({"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],)"
           R"( "data_source": "openai/gsm8k", "reward_model": {"ground_truth": "1,234"}})"
           "\n\n"
           R"({"prompt": "q", "reward_model": {"ground_truth": 5}})"));
  ASSERT_EQ(env->size(Split::kTrain), 3u);
  EXPECT_EQ(env->size(Split::kVal), 0u);
  EXPECT_EQ(env->demonstration(0)->response, "two #### 2");
  EXPECT_EQ(reward(*env, Split::kTrain, 0, "#### 2"), 1.0f);
  EXPECT_EQ(env->reset(Split::kTrain, 1)->messages().size(), 2u);
  EXPECT_EQ(env->reset(Split::kTrain, 1)->data_source(), "openai/gsm8k");
  EXPECT_EQ(reward(*env, Split::kTrain, 1, "it is 1234"), 1.0f);
  EXPECT_EQ(reward(*env, Split::kTrain, 2, "5.0"), 1.0f);
  EXPECT_FALSE(env->demonstration(1));
  EXPECT_NE(error_of([&] { env->reset(Split::kTrain, 3); }).find("3 rows"), std::string::npos);
}

TEST_F(Rows, BadRowsNameFileAndLine) {
  const std::string deep(1'000'000, '[');
  const std::string cases[] = {"{",
                               "3",
                               deep,
                               "{\"question\": \"\xff\", \"answer\": \"#### 1\"}",
                               "{\"question\": \"q\"}",
                               "{\"question\": 3, \"answer\": \"#### 1\"}",
                               "{\"question\": \"q\", \"answer\": \"no mark\"}",
                               "{\"question\": \"q\", \"answer\": \"#### \"}",
                               "{\"prompt\": 3, \"reward_model\": {\"ground_truth\": \"1\"}}",
                               "{\"prompt\": [], \"reward_model\": {\"ground_truth\": \"1\"}}",
                               "{\"prompt\": [3], \"reward_model\": {\"ground_truth\": \"1\"}}",
                               "{\"prompt\": \"q\"}",
                               "{\"prompt\": \"q\", \"reward_model\": {\"ground_truth\": []}}",
                               R"({"prompt": "q", "reward_model": {"ground_truth": )" + deep +
                                   std::string(deep.size(), ']') + "}}",
                               "{\"other\": 1}"};
  for (const std::string& row : cases) {
    const std::string message = error_of([&] { make_gsm8k(data(kGood + row + "\n")); });
    EXPECT_NE(message.find("rows.jsonl:2"), std::string::npos)
        << row.substr(0, 60) << " -> " << message;
    const auto skipping = make_gsm8k(data(kGood + row + "\n" + kGood, /*skip=*/true));
    EXPECT_EQ(skipping->size(Split::kTrain), 2u);
    EXPECT_NE(error_of([&] { make_gsm8k(data(row + "\n", true)); }).find("no usable row"),
              std::string::npos);
  }
  EXPECT_NE(error_of([&] { make_gsm8k(data("")); }).find("no usable row"), std::string::npos);
  proto::DataSection section;
  section.set_env(proto::DataSection::GSM8K);
  EXPECT_NE(error_of([&] { make_gsm8k(section); }).find("train_files"), std::string::npos);
  section.add_train_files(folder_.string());
  EXPECT_NE(error_of([&] { make_gsm8k(section); }).find("folder"), std::string::npos);
  section.set_train_files(0, (folder_ / "missing").string());
  EXPECT_NE(error_of([&] { make_gsm8k(section); }).find("missing"), std::string::npos);
}

TEST(Gsm8k, EveryPublishedRowEarnsItsReward) {
  ORRERY_NEEDS_ASSET("data/gsm8k/train.jsonl");
  proto::DataSection section;
  section.add_train_files((testing_support::assets() / "data/gsm8k/train.jsonl").string());
  section.add_val_files((testing_support::assets() / "data/gsm8k/test.jsonl").string());
  const auto env = make_gsm8k(section);
  EXPECT_EQ(env->size(Split::kTrain), 7473u);
  EXPECT_EQ(env->size(Split::kVal), 1319u);
  for (uint64_t i = 0; i < env->size(Split::kTrain); ++i) {
    EXPECT_EQ(reward(*env, Split::kTrain, i, env->demonstration(i)->response), 1.0f) << i;
  }
}

}  // namespace
}  // namespace orrery::actors
