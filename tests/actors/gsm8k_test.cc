#include "actors/envs/gsm8k.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "actors/jsonl.h"
#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery::actors {
namespace {

using testing::HasSubstr;
using testing_support::error_of;
using testing_support::ScratchPath;

class Gsm8kRows : public testing::Test {
 protected:
  proto::DataSection data(const std::string& contents) {
    std::filesystem::create_directories(scratch_.path());
    const auto path = scratch_.path() / "rows.jsonl";
    std::ofstream(path, std::ios::binary) << contents;
    proto::DataSection section;
    section.set_env(proto::DataSection::GSM8K);
    section.add_train_files(path.string());
    return section;
  }
  float reward(const std::string& row, const std::string& response) {
    return make_gsm8k(data(row))->reset(Split::kTrain, 0)->step(response).reward;
  }
  std::string refused(const std::string& row) {
    return error_of([&] { make_gsm8k(data(row)); });
  }
  ScratchPath scratch_{"gsm8k_rows_"};
};

std::string verl(const std::string& truth, const std::string& more = "") {
  return R"({"prompt": "q", "reward_model": {"style": "rule", "ground_truth": )" + truth + "}" +
         more + "}\n";
}

TEST_F(Gsm8kRows, KeysOfVerlWin) {
  const auto env = make_gsm8k(data(
      R"({"question": "Q", "answer": "#### 7", "prompt": [{"role": "system", "content": "S"},)"
      R"( {"role": "user", "content": "P"}], "reward_model": {"ground_truth": "5"}})"
      "\n"
      R"({"question": "Q", "prompt": "P", "reward_model": {"ground_truth": "5"}, "problem": 3})"
      "\n"
      R"({"question": "Q", "answer": "#### 7", "prompt": "P"})"));
  for (const uint64_t row : {0u, 1u}) {
    const auto episode = env->reset(Split::kTrain, row);
    EXPECT_EQ(episode->messages().back().content, "P");
    EXPECT_EQ(episode->step("#### 5").reward, 1);
    EXPECT_EQ(episode->step("#### 7").reward, 0);
    EXPECT_FALSE(env->demonstration(row));
  }
  EXPECT_EQ(env->reset(Split::kTrain, 2)->prompt(), "Q") << "without reward_model it is GSM8K's";
}

TEST_F(Gsm8kRows, NumbersOfJsonAreExact) {
  const std::pair<const char*, const char*> equal[] = {
      {"1e-5", "0.00001"},
      {"1e21", "1000000000000000000000"},
      {"100000000000000000000", "100000000000000000000"},
      {"123456789012345678901234567890", "123456789012345678901234567890"},
      {"0.1234567890123456789012345", "0.1234567890123456789012345"},
      {"18446744073709551616", "18446744073709551616"},
      {"-7", "-7"},
      {"5", "5.0"},
      {"2.50", "2.5"},
      {"0.5", "1/2"}};
  for (const auto& [truth, answer] : equal)
    EXPECT_EQ(reward(verl(truth), std::string("#### ") + answer), 1) << truth;
  EXPECT_EQ(reward(verl("123456789012345678901234567890"), "#### 123456789012345678901234567891"),
            0);
  EXPECT_EQ(reward(verl("100000000000000000001"), "#### 100000000000000000000"), 0);
  EXPECT_EQ(reward(verl("\"10^20\""), "#### 100000000000000000000"), 1);
}

TEST_F(Gsm8kRows, NumberTexts) {
  const std::vector<std::string> path = {"a", "b"};
  EXPECT_THAT(json_number_texts(R"({"a": {"b": 1.50}, "b": 2})", path),
              testing::ElementsAre("1.50"));
  EXPECT_THAT(json_number_texts(
                  R"({"a": {"c": {"b": 3}, "b": [1, "x", 2e0, [4], {"b": 5}], "d": 6}})", path),
              testing::ElementsAre("1", "2e0"));
  EXPECT_THAT(json_number_texts(R"({"a": {"b": 1}, "a": {"b": 2, "b": -3}})", path),
              testing::ElementsAre("-3"));
  EXPECT_THAT(json_number_texts(R"([{"a": {"b": 1}}])", path), testing::IsEmpty());
  EXPECT_THAT(json_number_texts(R"({"a": [{"b": 1}], "b": 2})", path), testing::IsEmpty());
}

TEST_F(Gsm8kRows, AListOfTruths) {
  for (const char* answer : {"#### 5", "#### 7.5", "\\boxed{\\text{five}}"}) {
    EXPECT_EQ(reward(verl(R"(["five", 5, "x", 7.50])"), answer), 1) << answer;
  }
  EXPECT_EQ(reward(verl(R"(["five", 5])"), "#### 6"), 0);
  for (const char* bad : {"[]", "[[1]]", "[null]", "{}", "null", "true", "[1, {}]"}) {
    EXPECT_THAT(refused(verl(bad)), HasSubstr("rows.jsonl:1: ")) << bad;
  }
}

TEST_F(Gsm8kRows, TheRuleFollowsTheDataSource) {
  const auto from = [](const char* source) {
    return verl("\"\\\\frac{1}{2}\"", std::string(R"(, "data_source": )") + source);
  };
  // math-boxed wants a box; gsm8k takes the last number, too.
  EXPECT_EQ(reward(from("\"math500\""), "it is 0.5"), 0);
  EXPECT_EQ(reward(from("\"math500\""), "\\boxed{\\frac12}"), 1);
  EXPECT_EQ(reward(from("\"openai/gsm8k\""), "it is 0.5"), 1);
  EXPECT_EQ(reward(from("null"), "it is 0.5"), 1) << "no source: the environment's rule";
  EXPECT_EQ(reward(verl("\"1/2\""), "it is 0.5"), 1);
  EXPECT_EQ(make_gsm8k(data(from("\"math500\"")))->reset(Split::kTrain, 0)->data_source(),
            "math500");
  for (const char* source : {"\"my/set\"", "\"math_dapo\"", "\"\""}) {
    EXPECT_THAT(refused(from(source)),
                testing::AllOf(HasSubstr("rows.jsonl:1: "), HasSubstr(source),
                               HasSubstr("data.reward_rule"), HasSubstr("openai/gsm8k")));
  }
  EXPECT_THAT(refused(from("3")), HasSubstr("\"data_source\" is number"));
}

TEST_F(Gsm8kRows, AnUnknownSourceIsNoBadRow) {
  auto section = data(verl("\"5\"") + verl("\"5\"", R"(, "data_source": "my/set")"));
  section.set_on_error(proto::DataSection::SKIP);
  try {
    make_gsm8k(section);
    FAIL() << "the row was skipped";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    EXPECT_THAT(error.what(),
                testing::AllOf(HasSubstr("rows.jsonl:2: "), HasSubstr("my/set"),
                               HasSubstr("data.reward_rule"), HasSubstr("openai/gsm8k"),
                               testing::Not(HasSubstr("on_error"))));
  }
}

TEST_F(Gsm8kRows, FilesOfOtherFormatsAreNamed) {
  const std::pair<std::string, const char*> cases[] = {
      {std::string("PAR1\x15\0\x15", 7), "is a Parquet file"},
      {"[{\"question\": \"q\", \"answer\": \"#### 1\"}]", "JSON array"},
      {"\n[\n  {\"question\": \"q\"}\n]\n", "JSON array"},
      {"{\n  \"question\": \"q\"\n}\n", "JSON object"},
      {"\x1F\x8B\x08 and so on", "gzip"},
      {"\x89HDF\r\n\x1A\n", "HDF5"}};
  for (const auto& [contents, name] : cases) {
    for (const auto on_error : {proto::DataSection::FAIL, proto::DataSection::SKIP}) {
      auto section = data(contents);
      section.set_on_error(on_error);
      const std::string message = error_of([&] { make_gsm8k(section); });
      EXPECT_THAT(message, testing::AllOf(HasSubstr("rows.jsonl is "), HasSubstr(name),
                                          HasSubstr("JSON Lines"), testing::Not(HasSubstr("\n"))));
    }
  }
  EXPECT_THAT(refused("PAR1"), HasSubstr("to_json("));
}

TEST_F(Gsm8kRows, RewardRuleOverrides) {
  auto section = data(verl("\"5\"", R"(, "data_source": "my/set")") +
                      verl("\"5\"", R"(, "data_source": "openai/gsm8k")"));
  section.set_reward_rule(proto::MATH_BOXED);
  const auto boxed = make_gsm8k(section);
  section.set_reward_rule(proto::GSM8K);
  const auto hashes = make_gsm8k(section);
  section.set_answer_extraction(proto::DataSection::STRICT);
  const auto strict = make_gsm8k(section);
  for (const uint64_t row : {0u, 1u}) {
    EXPECT_EQ(boxed->reset(Split::kTrain, row)->step("#### 5").reward, 0);
    EXPECT_EQ(hashes->reset(Split::kTrain, row)->step("#### 5").reward, 1);
    EXPECT_EQ(hashes->reset(Split::kTrain, row)->step("5").reward, 1);
    EXPECT_EQ(strict->reset(Split::kTrain, row)->step("5").reward, 0);
  }
  EXPECT_EQ(boxed->reset(Split::kTrain, 0)->data_source(), "my/set");
}

TEST_F(Gsm8kRows, MathsLayout) {
  const auto env = make_gsm8k(
      data(R"({"problem": "p", "solution": "so \\boxed{\\frac{1}{2}}", "answer": "\\frac{1}{2}"})"
           "\n"
           R"({"problem": "p", "solution": "so \\boxed{3}"})"
           "\n"
           R"({"problem": "p", "answer": 7})"));
  EXPECT_EQ(env->reset(Split::kTrain, 0)->step("\\boxed{0.5}").reward, 1);
  EXPECT_EQ(env->reset(Split::kTrain, 0)->data_source(), "math");
  EXPECT_EQ(env->demonstration(0)->response, "so \\boxed{\\frac{1}{2}}");
  EXPECT_EQ(env->reset(Split::kTrain, 1)->step("\\boxed{3}").reward, 1);
  EXPECT_EQ(env->reset(Split::kTrain, 2)->step("\\boxed{7}").reward, 1);
  EXPECT_FALSE(env->demonstration(2));
  EXPECT_THAT(refused(R"({"problem": "p"})"), HasSubstr("rows.jsonl:1: neither an \"answer\""));
  EXPECT_THAT(refused(R"({"problem": "p", "solution": "no box"})"),
              HasSubstr("rows.jsonl:1: neither"));
}

TEST_F(Gsm8kRows, SaysWhatIsRightAndWhereARowStands) {
  const auto env = make_gsm8k(data(std::string(R"({"question": "q", "answer": "so\n#### 72"})") +
                                   "\n\n" + verl(R"(["5", 1.50])")));
  EXPECT_EQ(env->reset(Split::kTrain, 0)->truth(), "72");
  EXPECT_EQ(env->reset(Split::kTrain, 1)->truth(), "5 or 1.50");
  EXPECT_EQ(env->data_row(Split::kTrain, 0).line, 1u);
  EXPECT_EQ(env->data_row(Split::kTrain, 1).line, 3u);
  EXPECT_EQ(env->where(Split::kTrain, 1), env->data_row(Split::kTrain, 1).file + ":3");
}

TEST_F(Gsm8kRows, TruthsThatNothingMeetsAreSaid) {
  for (const std::string& row : {verl("\"\""), verl("\" \""), verl("\"$$\""), verl("[\"5\", \"\"]"),
                                 std::string(R"({"problem": "p", "answer": "\\text{}"})"),
                                 std::string(R"({"question": "q", "answer": "#### ."})")}) {
    EXPECT_THAT(refused(row),
                testing::AllOf(HasSubstr("rows.jsonl:1: "), HasSubstr("no response could earn")))
        << row;
  }
  auto section = data(verl("\"\"") + verl("\"5\""));
  section.set_on_error(proto::DataSection::SKIP);
  EXPECT_EQ(make_gsm8k(section)->size(Split::kTrain), 1u);
  section = data(verl("\"\"") + verl("\"\""));
  section.set_on_error(proto::DataSection::SKIP);
  EXPECT_THAT(error_of([&] { make_gsm8k(section); }),
              testing::AllOf(HasSubstr("no usable row"), HasSubstr("could earn")));
}

}  // namespace
}  // namespace orrery::actors
