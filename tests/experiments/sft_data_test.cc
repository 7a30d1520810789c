#include "experiments/sft_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "actors/envs/single_turn.h"
#include "config/config.h"
#include "core/error.h"
#include "tests/support/scratch.h"

namespace orrery::experiments {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::error_of;

/// A prompt and an answer of so many digits each; no answer: the row has no teacher.
struct Row {
  size_t prompt = 1;
  std::optional<size_t> answer = 1;
};

class Teacher : public actors::Environment {
 public:
  explicit Teacher(std::vector<Row> rows, bool endless = false)
      : rows_(std::move(rows)), endless_(endless) {}
  uint64_t size(actors::Split) const override { return endless_ ? 0 : rows_.size(); }
  std::unique_ptr<actors::Episode> reset(actors::Split, uint64_t item) const override {
    return std::make_unique<actors::SingleTurnEpisode>(
        std::string(row(item).prompt, '7'), "teacher",
        [](const std::string&) { return actors::StepResult{}; });
  }
  std::optional<actors::Demonstration> demonstration(uint64_t item) const override {
    if (!row(item).answer) return std::nullopt;
    return actors::Demonstration{std::string(row(item).prompt, '7'),
                                 std::string(*row(item).answer, '5')};
  }

 private:
  const Row& row(uint64_t item) const { return rows_[item % rows_.size()]; }
  std::vector<Row> rows_;
  bool endless_;
};

class Sft : public testing::Test {
 protected:
  Sft()
      : tokenizer_(text::Tokenizer::load(std::filesystem::path(ORRERY_SOURCE_DIR) /
                                         "experiments/quickstart_model")) {
    config_.set_seed(3);
    config_.mutable_sft()->set_max_length(8);
    config_.mutable_sft()->set_total_training_steps(10);
    config_.mutable_data();
  }

  void skip() { config_.mutable_data()->set_on_error(proto::DataSection::SKIP); }
  SftData data(const actors::Environment& env) {
    source_.emplace(config_.data(), env, tokenizer_, 3, actors::CheckSetup{},
                    actors::PromptUse{0, false});
    return SftData(config_, env, *source_, tokenizer_, {});
  }
  std::string refusal(const actors::Environment& env) {
    try {
      data(env);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), kExitUsage);
      return error.what();
    }
    return "no error";
  }
  size_t eos() const { return tokenizer_.eos_ids().empty() ? 0 : 1; }

  const text::Tokenizer tokenizer_;
  proto::Config config_;
  std::optional<actors::PromptSource> source_;
};

TEST_F(Sft, RowsThatDoNotFitAreRefusedByNameOrLeftOut) {
  const Teacher env({{1, 1}, {7, 1}, {2, 2}, {3, std::nullopt}, {20, 1}, {3, 3}});
  EXPECT_EQ(
      refusal(env),
      "training item 1: the prompt has 8 tokens and leaves no room for a response in "
      "sft.max_length 8; raise that or set data.on_error: skip to leave such demonstrations out");
  EXPECT_THAT(refusal(Teacher({{1, 1}, {1, std::nullopt}})),
              AllOf(HasSubstr("training item 1: there is no demonstration"),
                    HasSubstr("data.on_error: skip")));
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
  std::vector<text::ChatExample> expected;
  for (uint64_t i = 0; i < 9; ++i) expected.push_back(found.example(i));
  const SftData without = data(kept);
  for (uint64_t i = 0; i < 9; ++i) {
    EXPECT_EQ(without.example(i).prompt, expected[i].prompt) << i;
    EXPECT_EQ(without.example(i).response, expected[i].response) << i;
  }
  EXPECT_THAT(refusal(Teacher({{20, 1}, {30, 1}})),
              HasSubstr("none of 2 demonstrations can be used"));
  EXPECT_THAT(refusal(Teacher({{1, std::nullopt}})),
              HasSubstr("this environment has no demonstrations"));
}

TEST_F(Sft, ALongResponseIsCutAtItsEnd) {
  const text::ChatExample whole = data(Teacher({{2, 4}})).example(0),
                          cut = data(Teacher({{2, 40}})).example(0);
  EXPECT_EQ(whole.response.size(), 4 + eos());
  EXPECT_EQ(cut.prompt, whole.prompt);
  EXPECT_EQ(cut.prompt.size() + cut.response.size(), 8u);
  EXPECT_EQ(cut.response, std::vector<int32_t>(5, whole.response.front()));
}

TEST_F(Sft, AGeneratedExampleThatDoesNotFitIsReplaced) {
  const Teacher env({{1, 1}, {20, 1}}, /*endless=*/true);
  EXPECT_THAT(refusal(env), HasSubstr("training item 1: the prompt has 21 tokens"));
  // replacement_item() keeps the remainder by two, so there is nothing else for the odd
  // ones here.
  skip();
  const SftData found = data(env);
  EXPECT_EQ(found.size(), 0u);
  EXPECT_EQ(found.example(4).prompt.size(), 2u);
  EXPECT_THAT(error_of([&] { found.example(5); }),
              HasSubstr("training item 5: the prompt has 21 tokens"));
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

/// Rows in a file of their own.
class SftOwnRows : public Sft {
 protected:
  SftOwnRows() : scratch_("rows") { std::filesystem::create_directories(scratch_.path()); }
  std::string write(const char* name, const std::string& text) const {
    const std::filesystem::path path = scratch_.path() / name;
    std::ofstream(path) << text;
    return path.string();
  }
  std::vector<SftExample> rows(const std::string& text) {
    source_.emplace(config_.data(), none_, tokenizer_, 3, actors::CheckSetup{},
                    actors::PromptUse{0, false});
    return SftRows("sft.train_files", {write("rows.jsonl", text)}, config_, *source_, tokenizer_,
                   {})
        .examples();
  }
  std::string rows_refusal(const std::string& text) {
    return error_of([&] { rows(text); });
  }

  testing_support::ScratchPath scratch_;
  const Teacher none_{{{1, std::nullopt}}};
};

TEST_F(SftOwnRows, ArePromptAndResponseAsDemonstrationsAre) {
  const std::vector<SftExample> found = rows(
      "{\"prompt\": \"77\", \"response\": \"555\"}\n\n"
      "{\"prompt\": [{\"role\": \"user\", \"content\": \"77\"}], \"completion\": [{\"role\": "
      "\"assistant\", \"content\": \"555\"}], \"weight\": 0.5}\n"
      "{\"prompt\": \"7\", \"response\": \"5555555555\", \"weight\": 0}\n");
  ASSERT_EQ(found.size(), 3u);
  const text::ChatExample taught = data(Teacher({{2, 3}})).example(0);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(found[i].prompt, taught.prompt);
    EXPECT_EQ(found[i].response, taught.response);
    EXPECT_TRUE(found[i].loss_mask.empty()) << "all is learned";
    EXPECT_EQ(found[i].loss_tokens(), static_cast<int64_t>(taught.response.size()));
  }
  EXPECT_EQ(found[0].weight, 1);
  EXPECT_EQ(found[1].weight, 0.5);
  EXPECT_EQ(found[2].weight, 0);
  EXPECT_EQ(found[2].tokens(), 8) << "cut to sft.max_length";
}

TEST_F(SftOwnRows, AreAPermutationEachEpoch) {
  std::string text;
  for (int i = 1; i <= 5; ++i)
    text +=
        "{\"prompt\": \"7\", \"response\": \"" + std::string(static_cast<size_t>(i), '5') + "\"}\n";
  config_.mutable_sft()->add_train_files(write("train.jsonl", text));
  const SftData found = data(none_);
  EXPECT_EQ(found.size(), 5u);
  EXPECT_EQ(found.longest(), static_cast<int64_t>(2 + 5 + eos()));
  std::vector<std::vector<size_t>> epochs;
  for (uint64_t epoch = 0; epoch < 4; ++epoch) {
    epochs.emplace_back();
    for (uint64_t i = 0; i < 5; ++i)
      epochs.back().push_back(found.example(5 * epoch + i).response.size() - eos());
    EXPECT_THAT(epochs.back(), testing::UnorderedElementsAre(1, 2, 3, 4, 5));
  }
  EXPECT_NE(epochs[0], epochs[1]);
}

TEST_F(SftOwnRows, BadOnesAreNamedOrLeftOut) {
  const std::string good = "{\"prompt\": \"7\", \"response\": \"5\"}\n";
  EXPECT_THAT(rows_refusal(good + "{\"prompt\": \"7\"}\n"),
              HasSubstr("rows.jsonl:2: a \"prompt\" without"));
  EXPECT_THAT(
      rows_refusal(good + "{\"prompt\": \"7777777777\", \"response\": \"5\"}\n"),
      AllOf(HasSubstr("rows.jsonl:2: the prompt has 11 tokens"), HasSubstr("raise that or set")));
  EXPECT_THAT(rows_refusal("{\"prompt\": \"7\", \"response\": \"5\", \"weight\": -0.0}\n"),
              HasSubstr("every row of sft.train_files has \"weight\" 0"));
  const std::string chat =
      "{\"messages\": [{\"role\": \"user\", \"content\": \"7\"}, {\"role\": "
      "\"assistant\", \"content\": \"5\"}]}\n";
  skip();
  EXPECT_THAT(rows_refusal(good + chat), HasSubstr("rows.jsonl:2: a row of \"messages\""))
      << "no bad row";
  EXPECT_EQ(rows(good + "{\"prompt\": \"7777777777\", \"response\": \"5\"}\n{}\n" + good).size(),
            2u);
}

TEST_F(SftOwnRows, JsonIsNoPlainText) {
  const auto refused = [&](const char* name, const std::string& text) {
    return error_of([&] { check_plain_text(write(name, text), text); });
  };
  EXPECT_THAT(refused("a.jsonl", "x"), HasSubstr("a.jsonl is JSON"));
  EXPECT_THAT(refused("a.JSON", "x"), HasSubstr("sft.train_files"));
  EXPECT_THAT(refused("a.txt", "\n{\"a\": 1}\n\n {\"b\": 2}\r\n"), HasSubstr("a.txt is JSON"));
  EXPECT_EQ(refused("a.txt", "{\"a\": 1}\nand a text\n"), "no error");
  EXPECT_EQ(refused("a.txt", "[1]\n"), "no error");
  EXPECT_EQ(refused("a.txt", ""), "no error");
  EXPECT_EQ(refused("a.txt", "{}{}\n"), "no error");
}

TEST_F(SftOwnRows, TheRateHasADefaultOfItsOwn) {
  const auto rates = [&](const std::string& text) {
    const proto::Config config = config::load_config(write("c.yaml", text), {});
    return std::pair(config.sft().optim().lr(), config.actor().optim().lr());
  };
  EXPECT_EQ(rates("seed: 1\n"), std::pair(1e-5, 1e-6));
  EXPECT_EQ(rates("sft: {total_training_steps: 1, optim: {clip_grad: 0}}\n"),
            std::pair(1e-5, 1e-6));
  EXPECT_EQ(
      rates("sft: {total_training_steps: 1, optim: {lr: 1e-6}}\nactor: {optim: {lr: 3e-4}}\n"),
      std::pair(1e-6, 3e-4));
  EXPECT_EQ(rates(config::config_to_yaml(config::load_config(write("d.yaml", "seed: 1\n"), {}))),
            std::pair(1e-5, 1e-6));
  const proto::Config files = config::load_config(
      write("e.yaml",
            "sft: {total_training_steps: 1, train_files: [a.jsonl], val_files: [b.jsonl], "
            "text_files: [c.txt]}\ntrainer: {test_freq: 1}\n"),
      {});
  EXPECT_EQ(files.sft().train_files(0), (scratch_.path() / "a.jsonl").string());
  EXPECT_EQ(files.sft().val_files(0), (scratch_.path() / "b.jsonl").string());
}

}  // namespace
}  // namespace orrery::experiments
