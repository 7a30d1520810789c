#include "actors/envs/reward_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "tests/support/assets.h"

namespace orrery::actors {
namespace {

using Data = proto::DataSection;

Grade graded(const std::string& response, const std::string& truth,
             proto::RewardRule rule = proto::GSM8K,
             Data::AnswerExtraction extraction = Data::AUTO) {
  return Grader(rule, extraction, {truth}).grade(response);
}

struct Case {
  const char* response;
  const char* truth;
  bool right;
};

TEST(RewardRule, Gsm8k) {
  const Case cases[] = {
      // What is no number is compared as text.
      {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", true},
      {"\\boxed{\\frac{1}{2}}", "0.5", true},
      {"\\boxed{\\frac{1}{2}}", "2", false},
      {"\\boxed{x^2}", "x^2", true},
      {"\\boxed{x^2}", "2", false},
      {"\\boxed{(1,2)}", "(1,2)", true},
      {"\\boxed{(1,2)}", "2", false},
      {"\\boxed{.75 meters}", "0.75", true},
      {"\\boxed{1{,}234}", "1234", true},
      {"\\boxed{1\\,234}", "1234", true},
      {"\\boxed{3 \\times 10^5}", "5", false},
      {"\\boxed{3 \\times 10^5}", "300000", true},
      {"so 7 \\fbox{42} and 9", "42", true},
      {"\\boxed{x = 42}", "42", true},
      {"\\boxed{\\text{Paris}}", "Paris", true},
      {"\\boxed{}", "5", false},
      // Behind #### the first number counts.
      {"#### 3 cm", "3 cm", true},
      {"#### 3 cm", "3", true},
      {"#### 3", "3 cm", true},
      {"#### 3 cm long", "3 cm", true},
      {"#### 3 m", "3 cm", false},
      {"#### 12:30", "12:30", true},
      {"#### 12:30", "12", false},
      {"#### 12:30", "30", false},
      {"#### 20 out of 30", "20", true},
      {"#### 20 out of 30", "30", false},
      {"#### 20 out of 30", "20 out of 30", true},
      {"#### 42 (from 50-8)", "42", true},
      {"#### 5 apples and 3 pears", "5", true},
      {"#### 5 apples and 3 pears", "3", false},
      {"#### $18.00", "18", true},
      {"#### **18**", "18", true},
      {"#### 18\nI hope this helps with 7!", "18", true},
      {"#### 3, 4", "34", false},
      {"#### 3, 4", "3, 4", true},
      {"#### 3,4", "34", false},
      {"#### 1 1/2", "11/2", false},
      {"#### 1 1/2", "3/2", true},
      {"#### 1 1/2", "1", false},
      {"#### 4/2", "2", true},
      {"#### 1e3", "1000", true},
      {"#### \u22125", "-5", true},
      {"#### \u22125", "5", false},
      {"#### 1\u202F234", "1234", true},
      {"#### 1 234", "1234", true},
      {"#### 0.00001", "1e-05", true},
      {"#### 1000000000000000000000", "1e+21", true},
      {"#### 6 - 5i", "6", false},
      {"#### 6 - 5i", "6-5i", true},
      {"#### 3\\sqrt{2}", "3", false},
      {"#### 5x", "5", false},
      {"#### 2^5", "2", false},
      {"#### 42 = 50 - 8", "42", true},
      {"#### \\boxed{42}", "42", true},
      {"#### x = 42", "42", true},
      {"#### Answer: 42", "42", true},
      {"#### Paris", "Paris", true},
      {"#### London", "Paris", false},
      {"#### Paris\nSo it is.", "Paris", true},
      {"#### 1. Add\n1 and 1.\n#### 2. Say\nIt is \\boxed{2}", "2", true},
      {"#### Step 1\nThe answer is 42.", "42", true},
      {"#### Step 1\nThe answer is 42.", "1", false},
      // The ground truth may be written in as many ways.
      {"#### 1234", "$1,234.00", true},
      {"#### 1234", "\\boxed{1{,}234}", true},
      {"#### 1234", "so it is\n#### 1,234", true},
      {"\\boxed{34}", "3, 4", false},
      // Without a mark.
      {"The answer is .5", "0.5", true},
      {"The answer is .5", "5", false},
      {"The answer is 41.", "41", true},
      {"first 41, then 42", "41", false},
      {"2\\pi", "2\\pi", true},
      {"it is 2\\pi", "2", false},
      {"x^2", "2", false},
      {"no number", "0", false},
      {"", "0", false},
  };
  for (const Case& c : cases)
    EXPECT_EQ(graded(c.response, c.truth).correct, c.right) << c.response << " | " << c.truth;
}

TEST(RewardRule, MathBoxed) {
  const Case cases[] = {
      {"so \\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}.", "(3,\\frac{\\pi}{2})", true},
      {"\\boxed{\\frac12}", "0.5", true},
      {"\\boxed{5}", "x=5", true},
      {"\\boxed{90}", "90^\\circ", true},
      {"\\boxed{52_8}", "52", false},
      {"\\boxed{1} then \\boxed{2}", "1", false},
      {"the answer is 5", "5", false},
      {"#### 5", "5", false},
      {"\\boxed{5", "5", false},
      {"\\boxed{5}", "We see that it is $\\boxed{5}$.", true}};
  for (const Case& c : cases) {
    EXPECT_EQ(graded(c.response, c.truth, proto::MATH_BOXED).correct, c.right)
        << c.response << " | " << c.truth;
  }
}

TEST(RewardRule, StrictAndFlexibleExtraction) {
  EXPECT_TRUE(graded("it is 5", "5").correct) << "gsm8k is flexible by default";
  EXPECT_FALSE(graded("it is 5", "5", proto::GSM8K, Data::STRICT).correct);
  EXPECT_TRUE(graded("#### 5", "5", proto::GSM8K, Data::STRICT).correct);
  EXPECT_TRUE(graded("\\boxed{5}", "5", proto::GSM8K, Data::STRICT).correct);
  EXPECT_TRUE(graded("it is 5", "5", proto::MATH_BOXED, Data::FLEXIBLE).correct);
  EXPECT_FALSE(graded("\\boxed{4} not 5", "5", proto::MATH_BOXED, Data::FLEXIBLE).correct)
      << "a mark is the answer";
  EXPECT_FALSE(graded("it is 5", "5").marked);
  EXPECT_TRUE(graded("#### 6", "5").marked);
}

TEST(RewardRule, AnyOfSeveralTruths) {
  const Grader grader(proto::GSM8K, Data::AUTO, {"5", "five", "\\frac{1}{3}"});
  for (const char* response : {"#### 5", "#### five", "\\boxed{1/3}", "5"})
    EXPECT_TRUE(grader.grade(response).correct) << response;
  EXPECT_FALSE(grader.grade("#### 3").correct);
}

TEST(RewardRule, SourcesHaveRules) {
  for (const char* name : {"gsm8k", "openai/gsm8k"})
    EXPECT_EQ(rule_of_source(name), proto::GSM8K) << name;
  for (const char* name : {"math500", "HuggingFaceH4/MATH-500", "lighteval/MATH",
                           "DigitalLearningGmbH/MATH-lighteval", "hendrycks/competition_math"}) {
    EXPECT_EQ(rule_of_source(name), proto::MATH_BOXED) << name;
  }
  for (const char* name :
       {"", "math_dapo", "aime24", "math", "codecontests", "hiyouga/geometry3k", "gsm8k2"}) {
    EXPECT_FALSE(rule_of_source(name)) << name;
  }
}

TEST(RewardRule, TruthsThatNothingMeets) {
  for (const auto rule : {proto::GSM8K, proto::MATH_BOXED}) {
    for (const char* truth : {"", " ", "$$", "\\text{}", "\\boxed{}", "."}) {
      EXPECT_FALSE(Grader(rule, Data::AUTO, {truth}).can_be_met(truth)) << truth;
    }
    for (const char* truth :
         {"5", "Paris", "x^2", "12:30", "3, 4", "1e21", "\\text{(C)}", "1\n2", "a }{ b"}) {
      const bool unbalanced = std::string(truth) == "a }{ b" && rule == proto::MATH_BOXED;
      EXPECT_EQ(Grader(rule, Data::AUTO, {truth}).can_be_met(truth), !unbalanced) << truth;
    }
  }
}

std::unique_ptr<Environment> published(const char* file) {
  Data data;
  data.set_env(Data::GSM8K);
  data.add_train_files((testing_support::assets() / file).string());
  data.add_val_files((testing_support::assets() / file).string());
  return make_environment(data, 1);
}

TEST(PublishedData, EveryMathAnswerEarnsItsRewardAndNoOtherOnes) {
  ORRERY_NEEDS_ASSET("data/math500/test.jsonl");
  const auto env = published("data/math500/test.jsonl");
  std::ifstream file(testing_support::assets() / "data/math500/test.jsonl");
  std::vector<std::string> answers, solutions;
  for (std::string line; std::getline(file, line);) {
    const auto row = nlohmann::json::parse(line);
    answers.push_back(row.at("answer"));
    solutions.push_back(row.at("solution"));
  }
  ASSERT_EQ(answers.size(), 500u);
  ASSERT_EQ(env->size(Split::kVal), 500u);
  int right = 0, by_solution = 0;
  std::set<std::string> written_otherwise;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto episode = env->reset(Split::kVal, i);
    const auto reward = [&](const std::string& response) { return episode->step(response).reward; };
    right += reward("Thus the answer is $\\boxed{" + answers[i] + "}$.") == 1 ? 1 : 0;
    by_solution += reward(solutions[i]) == 1 ? 1 : 0;
    // Every other problem's answer, the next one's among them.
    for (const std::string& other : answers) {
      if (other != answers[i] && reward("\\boxed{" + other + "}") == 1) {
        written_otherwise.insert(std::min(answers[i], other) + " = " + std::max(answers[i], other));
      }
    }
  }
  EXPECT_EQ(right, 500);
  EXPECT_EQ(by_solution, 500);
  EXPECT_THAT(written_otherwise,
              testing::UnorderedElementsAre(
                  "10,\\!080 = 10080", "120 = 120^\\circ", "15 = 15\\mbox{ cm}^2",
                  "2 \\sqrt{5} = 2\\sqrt{5}", "30 = 30^\\circ", "36 = 36^\\circ", "5 = x=5",
                  "90 = 90^\\circ", "36 = \\$36", "\\frac14 = \\frac{1}{4}"));
}

TEST(PublishedData, EveryGsm8kSolutionEarnsItsReward) {
  ORRERY_NEEDS_ASSET("data/gsm8k/test.jsonl");
  const auto env = published("data/gsm8k/test.jsonl");
  ASSERT_EQ(env->size(Split::kVal), 1319u);
  int right = 0;
  for (uint64_t i = 0; i < 1319; ++i) {
    const auto episode = env->reset(Split::kVal, i);
    const std::string solution = env->demonstration(i)->response;
    right += episode->step(solution).reward == 1 ? 1 : 0;
    EXPECT_EQ(episode->data_source(), "gsm8k");
  }
  EXPECT_EQ(right, 1319);
}

}  // namespace
}  // namespace orrery::actors
