// Rows and lines of data.env: external. What its processes do is in worker_pool_test.cc
// and tests/e2e/external_test.py.
#include "actors/envs/external.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "actors/envs/external_protocol.h"
#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery::actors {
namespace {

using testing::HasSubstr;
using testing_support::error_of;
using testing_support::ScratchPath;

class ExternalRows : public testing::Test {
 protected:
  proto::DataSection data(const std::string& rows) {
    std::ofstream(file_.path()) << rows;
    proto::DataSection section;
    section.set_env(proto::DataSection::EXTERNAL);
    section.add_train_files(file_.path().string());
    section.mutable_external()->set_command("true");
    return section;
  }
  std::string refused(const std::string& rows) {
    return error_of([&] { make_external(data(rows)); });
  }
  ScratchPath file_{"rows.jsonl"};
};

TEST_F(ExternalRows, PromptTruthSourceAndPlace) {
  const auto env = make_external(data(
      R"({"prompt": "p", "reward_model": {"ground_truth": [1.10, 2]}, "answer": "no", "data_source": "mine"})"
      "\n\n"
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "ground_truth": "t", "tools": [{"type": "function"}]})"
      "\n"
      R"({"question": "q", "answer": 12345678901234567890123, "solution": "so"})"
      "\n"
      R"({"problem": "m", "response": "r", "reward_model": {"style": "model"}})"
      "\n"));
  const auto episode = [&](uint64_t item) { return env->reset(Split::kTrain, item); };
  ASSERT_EQ(env->size(Split::kTrain), 4u);
  EXPECT_EQ(episode(0)->prompt(), "p");
  EXPECT_EQ(episode(0)->truth(), "[1.10, 2]");
  EXPECT_EQ(episode(0)->data_source(), "mine");
  EXPECT_EQ(episode(1)->prompt(), "s\n\nu");
  EXPECT_EQ(episode(1)->messages().size(), 2u);
  EXPECT_EQ(episode(1)->tools().size(), 1u);
  EXPECT_EQ(episode(1)->truth(), "t");
  EXPECT_EQ(episode(1)->data_source(), "external");
  EXPECT_EQ(env->data_row(Split::kTrain, 1).line, 3u);
  EXPECT_EQ(env->data_row(Split::kTrain, 1).file, file_.path().string());
  EXPECT_EQ(episode(2)->truth(), "12345678901234567890123");
  EXPECT_EQ(episode(3)->truth(), "");
  EXPECT_FALSE(env->demonstration(0));
  EXPECT_EQ(env->demonstration(2)->response, "so");
  EXPECT_EQ(env->demonstration(3)->response, "r");
}

TEST_F(ExternalRows, RowsWithoutAPromptAreRefused) {
  EXPECT_THAT(refused(R"({"text": "x"})"), HasSubstr("rows.jsonl:1: no prompt"));
  EXPECT_THAT(refused(R"({"prompt": 5})"), HasSubstr("rows.jsonl:1: \"prompt\" is number"));
  EXPECT_THAT(refused(R"({"messages": []})"), HasSubstr("rows.jsonl:1"));
  EXPECT_THAT(refused(R"({"prompt": "p", "data_source": 5})"),
              HasSubstr("\"data_source\" is number"));
  EXPECT_THAT(refused("{\"prompt\": \"p\", \"x\": " + std::string(200000, '[') + "}"),
              HasSubstr("rows.jsonl:1"));
  // Deep nesting that is valid is the program's to read.
  EXPECT_EQ(refused("{\"prompt\": \"p\", \"answer\": " + std::string(200000, '[') +
                    std::string(200000, ']') + "}"),
            "no error");
}

ExternalAnswer read(const std::string& line) { return read_answer(json_members(line)); }

TEST(ExternalAnswer, RewardsPartsAndObservations) {
  const ExternalAnswer reward = read(
      R"({"id": 1, "reward": 0.1, "acc": true, "b": -2e3, "note": "x", "list": [1], "none": null})");
  EXPECT_TRUE(reward.result.done);
  EXPECT_EQ(reward.result.reward, 0.1f);
  EXPECT_EQ(reward.result.extra, (std::map<std::string, double>{{"correct", 1}, {"b", -2000}}));
  EXPECT_EQ(read(R"({"reward": true})").result.reward, 1);
  EXPECT_EQ(read(R"({"reward": -0})").result.reward, 0);
  const ExternalAnswer turn = read(R"({"observation": "\u00e4", "state": {"f": 1.10}})");
  EXPECT_FALSE(turn.result.done);
  EXPECT_EQ(turn.result.observation, "\u00e4");
  EXPECT_EQ(turn.state_json, R"({"f": 1.10})");
  EXPECT_EQ(read(R"({"observation": ""})").state_json, "null");
}

TEST(ExternalAnswer, WhatIsWrongIsSaid) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({})", "has neither"},
      {R"({"reward": 1, "observation": "x"})", "has both"},
      {R"({"reward": "1"})", "a reward that is text"},
      {R"({"reward": null})", "a reward that is null"},
      {R"({"reward": [1]})", "a reward that is a list"},
      {R"({"reward": {}})", "a reward that is an object"},
      {R"({"reward": 1e39})", "beyond float32"},
      {R"({"reward": -1e300})", "beyond float32"},
      {R"({"reward": 1, "reward": 2})", "two members of one name"},
      {R"({"reward": 1, "acc": "True"})", "an \"acc\" that is"},
      {R"({"reward": 1, "acc": 1, "correct": 1})", "both \"acc\" and \"correct\""},
      {R"({"reward": 1, "": 1})", "whose name"},
      {R"({"reward": 1, "a b": 1})", "whose name"},
      {R"({"reward": 1, "\u0000": 1})", "whose name"},
      {R"({"observation": 1})", "an observation that is a number"}};
  for (const auto& [line, why] : cases)
    EXPECT_THAT(error_of([&line = line] { read(line); }), HasSubstr(why)) << line;
  std::string many = R"({"reward": 1)";
  for (int i = 0; i < 65; ++i) many += fmt::format(R"(, "p{}": 1)", i);
  EXPECT_THAT(error_of([&] { read(many + "}"); }), HasSubstr("more than 64"));
}

TEST(ExternalRequest, IsOneLineOfJson) {
  ExternalRequest request;
  request.episode = "val/3/14/1";
  request.split = Split::kVal;
  request.turn = 1;
  request.row_json = R"({"z": 1.10, "a": 123456789012345678901234567890})";
  request.ground_truth_json = "1.10";
  request.data_source = "a\"b";
  request.prompt = "line\nline";
  request.messages_json = R"([{"role": "user", "content": "p"}])";
  const std::string turns = turn_json("assistant", "x\xff") + turn_json("user", "o");
  request.turns_json = turns;
  request.response = "r\t";
  request.tokens_left = 7;
  request.state_json = "{\"n\":[1]}";
  const std::string line = "{\"id\": 5, " + request_rest(request);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["messages"].size(), 3u);
  EXPECT_EQ(json["messages"][1]["content"], "x\xEF\xBF\xBD");
  EXPECT_EQ(json["prompt"], "line\nline");
  EXPECT_EQ(json["state"]["n"][0], 1);
  EXPECT_EQ(json["split"], "val");
  EXPECT_EQ(json["tokens_left"], 7);
  EXPECT_THAT(line, HasSubstr(R"("ground_truth": 1.10, )"));
  EXPECT_TRUE(line.ends_with(R"("row": {"z": 1.10, "a": 123456789012345678901234567890}})"));
}

}  // namespace
}  // namespace orrery::actors
