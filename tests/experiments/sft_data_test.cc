#include "experiments/sft_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "actors/envs/single_turn.h"
#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::error_of;

/// A prompt and an answer of so many digits each; no answer: the row has no teacher.
struct Row {
  size_t prompt = 1;
  std::optional<size_t> answer = 1;
};

class Teacher : public Environment {
 public:
  explicit Teacher(std::vector<Row> rows, bool endless = false) : rows_(std::move(rows)), endless_(endless) {}
  uint64_t size(Split) const override { return endless_ ? 0 : rows_.size(); }
  std::unique_ptr<Episode> reset(Split, uint64_t item) const override {
    return std::make_unique<SingleTurnEpisode>(std::string(row(item).prompt, '7'), "teacher",
                                               [](const std::string&) { return StepResult{}; });
  }
  std::optional<Demonstration> demonstration(uint64_t item) const override {
    if (!row(item).answer) return std::nullopt;
    return Demonstration{std::string(row(item).prompt, '7'), std::string(*row(item).answer, '5')};
  }

 private:
  const Row& row(uint64_t item) const { return rows_[item % rows_.size()]; }
  std::vector<Row> rows_;
  bool endless_;
};

class Sft : public testing::Test {
 protected:
  Sft()
      : tokenizer_(
            Tokenizer::load(std::filesystem::path(ORRERY_SOURCE_DIR) / "experiments/quickstart_model")) {
    config_.set_seed(3);
    config_.mutable_sft()->set_max_length(8);
    config_.mutable_sft()->set_total_training_steps(10);
    config_.mutable_data();
  }

  void skip() { config_.mutable_data()->set_on_error(proto::DataSection::SKIP); }
  SftData data(const Environment& env) {
    source_.emplace(config_.data(), env, tokenizer_, 3, CheckSetup{}, PromptUse{0, false});
    return SftData(config_, env, *source_, tokenizer_, {});
  }
  std::string refusal(const Environment& env) {
    try {
      data(env);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage);
      return error.what();
    }
    return "no error";
  }
  size_t eos() const { return tokenizer_.eos_ids().empty() ? 0 : 1; }

  const Tokenizer tokenizer_;
  proto::Config config_;
  std::optional<PromptSource> source_;
};

TEST_F(Sft, RowsThatDoNotFitAreRefusedByNameOrLeftOut) {
  const Teacher env({{1, 1}, {7, 1}, {2, 2}, {3, std::nullopt}, {20, 1}, {3, 3}});
  EXPECT_EQ(refusal(env),
            "training item 1: the prompt has 8 tokens and leaves no room for a response in sft.max_length 8; "
            "raise that or set data.on_error: skip to leave such demonstrations out");
  EXPECT_THAT(
      refusal(Teacher({{1, 1}, {1, std::nullopt}})),
      AllOf(HasSubstr("training item 1: there is no demonstration"), HasSubstr("data.on_error: skip")));
  skip();
  const SftData found = data(env);
  EXPECT_EQ(found.size(), 3u);
  for (uint64_t epoch = 0; epoch < 5; ++epoch) {
    std::vector<size_t> prompts;
    for (uint64_t i = 0; i < 3; ++i) prompts.push_back(found.example(3 * epoch + i).prompt.size());
    EXPECT_THAT(prompts, testing::UnorderedElementsAre(2, 3, 4)) << "with a BOS";
  }
  // As if the others had never been there.
  const Teacher kept({{1, 1}, {2, 2}, {3, 3}});
  std::vector<ChatExample> expected;
  for (uint64_t i = 0; i < 9; ++i) expected.push_back(found.example(i));
  const SftData without = data(kept);
  for (uint64_t i = 0; i < 9; ++i) {
    EXPECT_EQ(without.example(i).prompt, expected[i].prompt) << i;
    EXPECT_EQ(without.example(i).response, expected[i].response) << i;
  }
  EXPECT_THAT(refusal(Teacher({{20, 1}, {30, 1}})), HasSubstr("none of 2 demonstrations can be used"));
  EXPECT_THAT(refusal(Teacher({{1, std::nullopt}})), HasSubstr("this environment has no demonstrations"));
}

TEST_F(Sft, ALongResponseIsCutAtItsEnd) {
  const ChatExample whole = data(Teacher({{2, 4}})).example(0), cut = data(Teacher({{2, 40}})).example(0);
  EXPECT_EQ(whole.response.size(), 4 + eos());
  EXPECT_EQ(cut.prompt, whole.prompt);
  EXPECT_EQ(cut.prompt.size() + cut.response.size(), 8u);
  EXPECT_EQ(cut.response, std::vector<int32_t>(5, whole.response.front()));
}

TEST_F(Sft, AGeneratedExampleThatDoesNotFitIsReplaced) {
  const Teacher env({{1, 1}, {20, 1}}, /*endless=*/true);
  EXPECT_THAT(refusal(env), HasSubstr("training item 1: the prompt has 21 tokens"));
  // redrawn() keeps the remainder by two, so there is nothing else for the odd ones here.
  skip();
  const SftData found = data(env);
  EXPECT_EQ(found.size(), 0u);
  EXPECT_EQ(found.example(4).prompt.size(), 2u);
  EXPECT_THAT(error_of([&] { found.example(5); }), HasSubstr("training item 5: the prompt has 21 tokens"));
  const Teacher thirds({{1, 1}, {20, 1}, {1, 1}}, /*endless=*/true);
  const SftData replaced = data(thirds);
  for (uint64_t i = 0; i < 9; ++i) EXPECT_EQ(replaced.example(i).prompt.size(), 2u) << i;
}

TEST_F(Sft, DocumentsAreNamedByTheirLine) {
  const testing_support::ScratchPath scratch("orrery_sft_");
  std::filesystem::create_directories(scratch.path());
  const std::string file = (scratch.path() / "text.txt").string();
  std::ofstream(file) << "1+1=2\n---\n\n\xFF\xFE\n---\n12+34+56+78\n---\n \n---\n3\n";
  config_.mutable_sft()->add_text_files(file);
  config_.mutable_sft()->set_text_separator("---");
  const Teacher none({{1, std::nullopt}});
  EXPECT_THAT(refusal(none), AllOf(HasSubstr("text.txt:4: "), HasSubstr("not UTF-8")));
  skip();
  const SftData found = data(none);
  EXPECT_EQ(found.size(), 3u);
  for (uint64_t i = 0; i < 3; ++i)
    EXPECT_LE(found.example(i).prompt.size() + found.example(i).response.size(), 8u);
  const std::string empty = (scratch.path() / "empty.txt").string();
  std::ofstream(empty) << " \n---\n";
  config_.mutable_sft()->add_text_files(empty);
  EXPECT_THAT(refusal(none), AllOf(HasSubstr("empty.txt"), HasSubstr("no document")));
}

}  // namespace
}  // namespace orrery
