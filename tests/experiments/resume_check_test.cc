#include "experiments/resume_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <set>

#include "config/config.h"
#include "config/config_keys.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "core/file.h"
#include "experiments/inputs.h"
#include "experiments/resume_rules.h"
#include "tests/support/scratch.h"

namespace orrery::experiments {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing_support::error_of;

/// Keys of the schema that hold values.
std::vector<std::string> value_keys() {
  std::vector<std::string> keys = config::all_keys(*proto::Config::descriptor());
  const std::vector<std::string> all = keys;
  std::erase_if(keys, [&](const std::string& key) {
    return std::any_of(all.begin(), all.end(),
                       [&](const std::string& other) { return other.starts_with(key + "."); });
  });
  return keys;
}

// A new key must be thought about: in a section with an entry of its own it is fixed.
TEST(ResumeRules, EveryKeyHasOneAndEveryRuleHasKeys) {
  const std::vector<std::string> keys = value_keys();
  const auto fits = [](const ResumeRuleOfKey& rule, const std::string& key) {
    return rule.key.ends_with('.') ? key.starts_with(rule.key) : key == rule.key;
  };
  std::set<std::string_view> seen;
  for (const ResumeRuleOfKey& rule : resume_rules()) {
    EXPECT_TRUE(seen.insert(rule.key).second) << rule.key << " twice";
    EXPECT_TRUE(
        std::any_of(keys.begin(), keys.end(), [&](const auto& key) { return fits(rule, key); }))
        << rule.key << " is no key";
  }
  for (const std::string& key : keys) {
    EXPECT_TRUE(std::any_of(resume_rules().begin(), resume_rules().end(),
                            [&](const ResumeRuleOfKey& rule) { return fits(rule, key); }))
        << key << " is in no rule: experiments/resume_rules.cc, docs/resume.md";
  }
  EXPECT_EQ(resume_rule("data.some_new_key"), ResumeRule::kFixed);
  EXPECT_EQ(resume_rule("rollout.some_new_key"), ResumeRule::kFixed);
  EXPECT_EQ(resume_rule("data.val_size"), ResumeRule::kMeasure);
  EXPECT_EQ(resume_rule("actor.optim.lr"), ResumeRule::kTold);
}

/// Of docs/resume.md: `section.key`, `key` of the same section; and the first word of
/// what is said of them.
std::map<std::string, std::string> documented_rules() {
  std::map<std::string, std::string> rules;
  std::ifstream file(fs::path(ORRERY_SOURCE_DIR) / "docs" / "resume.md");
  const std::regex name("`([a-z0-9_.*]+)`");
  for (std::string line; std::getline(file, line);) {
    const size_t bar = line.find(" | ");
    if (!line.starts_with("| `") || bar == std::string::npos) continue;
    const std::string keys = line.substr(0, bar),
                      rule = line.substr(bar + 3, line.find(' ', bar + 3) - bar - 3);
    std::string section;
    for (std::sregex_iterator it(keys.begin(), keys.end(), name), end; it != end; ++it) {
      std::string key = (*it)[1];
      // After a semicolon a section is named anew; `optim.*` is of the one before.
      const bool anew = it->position() < 3 || keys[static_cast<size_t>(it->position()) - 2] == ';';
      if (anew)
        section = key.find('.') == std::string::npos ? "" : key.substr(0, key.find('.') + 1);
      if (!anew) key = section + key;
      if (key.ends_with('*')) key.pop_back();
      EXPECT_TRUE(rules.emplace(key, rule).second) << key << " twice";
    }
  }
  return rules;
}

TEST(ResumeRules, AreWhatTheDocumentationSays) {
  const auto documented = documented_rules();
  const std::map<ResumeRule, std::string> words = {{ResumeRule::kFixed, "fixed"},
                                                   {ResumeRule::kContent, "content"},
                                                   {ResumeRule::kMeasure, "measure"},
                                                   {ResumeRule::kTold, "told"},
                                                   {ResumeRule::kFree, "free"}};
  std::map<std::string, std::string> rules;
  for (const ResumeRuleOfKey& rule : resume_rules()) rules.emplace(rule.key, words.at(rule.rule));
  EXPECT_EQ(documented, rules);
}

std::string yaml(const std::function<void(proto::Config&)>& change = [](proto::Config&) {}) {
  proto::Config config;
  config::fill_defaults(config);
  change(config);
  return config::config_to_yaml(config);
}

TEST(ConfigChanges, TellWhatIsNotFree) {
  EXPECT_THAT(config_changes(yaml(), yaml()), IsEmpty());
  EXPECT_THAT(config_changes(yaml(), yaml([](proto::Config& c) {
                               c.set_run_dir("b");
                               c.mutable_cluster()->set_threads(4);
                               c.mutable_cluster()->set_hang_warn_s(3);
                               c.mutable_trainer()->set_save_freq(3);
                             })),
              IsEmpty());
  const auto changes = config_changes(yaml(), yaml([](proto::Config& c) {
                                        c.set_seed(5);
                                        c.mutable_data()->set_val_size(7);
                                        c.mutable_data()->set_system_prompt("a: b");
                                        c.mutable_cluster()->set_gradient_shards(4);
                                        c.mutable_actor()->mutable_optim()->set_lr(1e-5);
                                      }));
  EXPECT_EQ(to_text(changes),
            "actor.optim.lr: 1e-06 -> 1e-05, cluster.gradient_shards: 8 -> 4, data.system_prompt: "
            "null -> \"a: b\", data.val_size: 0 -> 7, seed: 1 -> 5");
  EXPECT_EQ(changes.back().rule, ResumeRule::kFixed);
}

TEST(ConfigChanges, AMappingIsOneValue) {
  const auto with = [](const std::map<std::string, std::string>& entries) {
    return yaml([&](proto::Config& c) {
      for (const auto& [name, json] : entries)
        (*c.mutable_data()->mutable_chat_template_kwargs())[name] = json;
    });
  };
  const std::string one = with({{"think", "false"}}),
                    two = with({{"think", "false"}, {"a: b", "[1, \"x\\n\"]"}});
  EXPECT_EQ(to_text(config_changes(yaml(), one)),
            "data.chat_template_kwargs: {} -> {\"think\": false}");
  EXPECT_EQ(to_text(config_changes(two, yaml())),
            "data.chat_template_kwargs: {\"a: b\": [1, \"x\\n\"], \"think\": false} -> {}");
  EXPECT_THAT(config_changes(two, two), IsEmpty());
  EXPECT_EQ(config_changes(one, two).front().rule, ResumeRule::kFixed);
}

TEST(ConfigChanges, AKeyThatIsNewerThanTheCheckpointHadItsDefault) {
  const std::string without = "seed: 1\n";
  EXPECT_THAT(config_changes(without, yaml()), IsEmpty());
  EXPECT_EQ(to_text(config_changes(without,
                                   yaml([](proto::Config& c) { c.mutable_rollout()->set_n(3); }))),
            "rollout.n: 8 -> 3");
  EXPECT_THAT(config_changes(yaml() + "gone: 3\n", yaml()), IsEmpty());
}

class ResumeCheck : public testing::Test {
 protected:
  ResumeCheck() {
    config::fill_defaults(config_);
    config_.set_run_dir("runs/a");
    config_.mutable_sft()->set_total_training_steps(5);
    config_.mutable_trainer()->set_total_training_steps(10);
    saved_.run_config_yaml = config::config_to_yaml(config_);
    saved_.state.emplace();
    saved_.inputs = {{"data.train_files", "/a.jsonl", "sha256:1"},
                     {"model.path", "tokenizer.json", "sha256:2"}};
    inputs_ = *saved_.inputs;
    at(5, 4);
  }

  void at(int64_t sft, int64_t rl) {
    saved_.state->sft_step = sft;
    saved_.state->rl_step = rl;
  }
  ResumeDecision ask(bool own = true) const {
    return check_resume({saved_, "runs/a/checkpoints/step_9", own, config_,
                         config::config_to_yaml(config_), inputs_, same_model_, numerics_});
  }
  std::string refusal(bool own = true) const {
    return error_of([&] { ask(own); });
  }

  proto::Config config_;
  storage::CheckpointInfo saved_;
  std::vector<storage::InputDigest> inputs_;
  bool same_model_ = true;
  std::string numerics_ = "f32-chain/2";
};

TEST_F(ResumeCheck, TheSameRunGoesOnWithoutAWord) {
  EXPECT_THAT(ask().warnings, IsEmpty());
  EXPECT_TRUE(ask().keep_scores);
  at(5, 10);
  EXPECT_THAT(ask().warnings, IsEmpty());
  EXPECT_THAT(ask(/*own=*/false).warnings, IsEmpty());
}

TEST_F(ResumeCheck, FixedKeysAndContentMakeAnotherExperiment) {
  config_.set_seed(5);
  config_.mutable_actor()->set_entropy_coeff(1);
  EXPECT_EQ(refusal(),
            "run_dir runs/a holds another experiment, now at step 9: seed: 1 -> 5; "
            "put that back to go on with it, use another run_dir, "
            "or begin from its weights with another run_dir and trainer.resume=runs/a");
  const ResumeDecision elsewhere = ask(/*own=*/false);
  EXPECT_THAT(elsewhere.warnings, ElementsAre(AllOf(HasSubstr("seed: 1 -> 5"),
                                                    HasSubstr("actor.entropy_coeff: 0 -> 1"))));
  EXPECT_FALSE(elsewhere.keep_scores);
  config_.set_seed(1);
  EXPECT_THAT(ask().warnings,
              ElementsAre(HasSubstr("the new values: actor.entropy_coeff: 0 -> 1")));
  EXPECT_TRUE(ask().keep_scores);
  inputs_[0] = {"data.train_files", "/b.jsonl", "sha256:1"};  // moved
  EXPECT_EQ(refusal(), "no error");
  inputs_[0].digest = "sha256:9";
  EXPECT_THAT(
      refusal(),
      HasSubstr("data.train_files[0]: /a.jsonl held sha256:1, now /b.jsonl holds sha256:9"));
  inputs_[0].digest = "none: not a regular file";  // a pipe: not known
  EXPECT_EQ(refusal(), "no error");
  inputs_.pop_back();
  EXPECT_THAT(refusal(), HasSubstr("model.path/tokenizer.json: tokenizer.json is gone"));
  inputs_ = *saved_.inputs;
  same_model_ = false;
  EXPECT_THAT(refusal(), HasSubstr("config.json"));
}

TEST_F(ResumeCheck, TextsMayBeGoneOnceSftIsOver) {
  saved_.inputs->push_back({"sft.text_files", "/t.txt", "sha256:3"});
  inputs_.push_back({"sft.text_files", "/t.txt", "unreadable: No such file or directory"});
  EXPECT_EQ(refusal(), "no error");
  at(4, 0);
  EXPECT_THAT(refusal(), HasSubstr("sft.text_files[0]: /t.txt held sha256:3, now unreadable"));
  inputs_.back().digest = "sha256:4";
  at(5, 4);
  EXPECT_THAT(refusal(), HasSubstr("sft.text_files[0]"));
}

TEST_F(ResumeCheck, AnotherClassOfTheNumericsIsRefusedAndAnotherVersionTold) {
  saved_.numerics = "f32-chain/2";
  saved_.device = "debug";
  EXPECT_THAT(ask().warnings, IsEmpty()) << "nobody compares devices";
  saved_.numerics = "f32-chain/1";
  ASSERT_EQ(ask().warnings.size(), 1u);
  EXPECT_THAT(ask().warnings[0],
              HasSubstr("learned with numerics f32-chain/1 and this program's are f32-chain/2: "
                        "from here on results differ in the last bits"));

  config_.mutable_model()->set_compute_dtype(proto::ModelSection::BF16);
  numerics_ = "pairs/1";
  saved_.numerics = "f32-chain/2";  // of another model.compute_dtype, which is what is told
  EXPECT_THAT(refusal(), HasSubstr("model.compute_dtype: f32 -> bf16"));
  ASSERT_EQ(ask(/*own=*/false).warnings.size(), 1u);
  EXPECT_THAT(ask(/*own=*/false).warnings[0], Not(HasSubstr("numerics")));
  saved_.run_config_yaml = config::config_to_yaml(config_);
  saved_.numerics = "bf16-storage/1";  // what older programs made of bf16
  EXPECT_THAT(refusal(),
              HasSubstr("learned with numerics bf16-storage/1 and this program's are "
                        "pairs/1: results would differ from here on; go on where it "
                        "learned (device debug), or set trainer.resume_numerics to any"));
  config_.mutable_trainer()->set_resume_numerics(proto::TrainerSection::ANY);
  ASSERT_EQ(ask().warnings.size(), 1u);
  EXPECT_THAT(ask().warnings[0],
              HasSubstr("learned with numerics bf16-storage/1 and this program's are pairs/1: "
                        "from here on results differ from"));
  saved_.numerics = "pairs/1";
  EXPECT_THAT(ask().warnings, IsEmpty());
}

TEST_F(ResumeCheck, TheDeviceMayChange) {
  config_.set_device("debug");
  EXPECT_THAT(ask().warnings, IsEmpty());
}

TEST_F(ResumeCheck, RowsOfSftAreComparedWhileItLearnsFromThem) {
  for (const char* key : {"sft.train_files", "sft.val_files"}) {
    saved_.inputs->push_back({key, "/r.jsonl", "sha256:3"});
    inputs_.push_back({key, "/r.jsonl", "sha256:3"});
  }
  saved_.state->val_before = 0.5;
  at(4, 0);
  config_.mutable_sft()->add_val_files("/r.jsonl");  // a path alone says nothing
  EXPECT_THAT(ask().warnings, IsEmpty());
  inputs_.back() = {"sft.val_files", "/v.jsonl", "sha256:4"};
  EXPECT_THAT(
      ask().warnings,
      ElementsAre(AllOf(HasSubstr("sft.val_files[0]: /r.jsonl held sha256:3, now /v.jsonl holds"),
                        Not(HasSubstr("dropped")))));
  EXPECT_TRUE(ask().keep_scores) << "RL's are not of these files";
  at(5, 4);
  EXPECT_THAT(ask().warnings, IsEmpty()) << "SFT is over";
  at(4, 0);
  inputs_.pop_back();
  EXPECT_THAT(ask().warnings, ElementsAre(HasSubstr("sft.val_files[0]: /r.jsonl is gone")));
  inputs_.back().digest = "sha256:5";
  EXPECT_THAT(refusal(), HasSubstr("another experiment, now at step 4: sft.train_files[0]"));
  inputs_.back().digest = "unreadable: No such file or directory";
  at(5, 4);
  EXPECT_EQ(refusal(), "no error");
}

TEST_F(ResumeCheck, AnOlderDefaultRateOfSftRefusesNobody) {
  config_.mutable_sft()->mutable_optim()->set_lr(1e-5);  // was 1e-6
  at(4, 0);
  EXPECT_THAT(ask().warnings, ElementsAre(HasSubstr("sft.optim.lr: 1e-06 -> 1e-05")));
  at(5, 4);
  EXPECT_THAT(ask().warnings, IsEmpty());
  at(5, 10);
  EXPECT_THAT(ask().warnings, IsEmpty());
  config_.mutable_sft()->set_total_training_steps(0);
  saved_.run_config_yaml = [&] {
    proto::Config before = config_;
    before.mutable_sft()->mutable_optim()->set_lr(1e-6);
    return config::config_to_yaml(before);
  }();
  at(0, 4);
  EXPECT_THAT(ask().warnings, IsEmpty());
}

TEST_F(ResumeCheck, AnotherMeasurementDropsTheScores) {
  config_.mutable_rollout()->set_val_n(4);
  saved_.state->val_before = 0.5;
  const ResumeDecision answer = ask();
  EXPECT_FALSE(answer.keep_scores);
  EXPECT_THAT(answer.warnings,
              ElementsAre(AllOf(HasSubstr("rollout.val_n: 1 -> 4"), HasSubstr("dropped"))));
}

TEST_F(ResumeCheck, WhatAStageThatIsOverWasGivenIsFixed) {
  config_.mutable_sft()->mutable_optim()->set_lr(0.1);
  EXPECT_THAT(refusal(), HasSubstr("another experiment, now at step 9: sft.optim.lr"));
  at(5, 0);
  EXPECT_THAT(refusal(), HasSubstr("sft.optim.lr"));
  at(4, 0);
  EXPECT_THAT(ask().warnings, ElementsAre(HasSubstr("sft.optim.lr")));
  config_.mutable_sft()->set_total_training_steps(4);  // cut short: SFT is over now
  EXPECT_THAT(refusal(), HasSubstr("sft.optim.lr"));
  config_.mutable_sft()->mutable_optim()->set_lr(1e-6);
  EXPECT_THAT(ask().warnings, ElementsAre(HasSubstr("sft.total_training_steps: 5 -> 4")));
  config_.mutable_sft()->set_total_training_steps(3);
  EXPECT_THAT(refusal(), HasSubstr("sft.total_training_steps: 5 -> 3"));
  at(5, 4);
  config_.mutable_sft()->set_total_training_steps(6);
  EXPECT_THAT(refusal(), HasSubstr("is past SFT, which took 5 steps"));
  EXPECT_THAT(refusal(/*own=*/false), HasSubstr("is past SFT"));
  config_.mutable_sft()->set_total_training_steps(0);
  EXPECT_THAT(refusal(), HasSubstr("sft.total_training_steps: 5 -> 0"));
  EXPECT_EQ(refusal(/*own=*/false), "no error");
}

TEST_F(ResumeCheck, OfACompleteRunNothingMayChangeInVain) {
  at(5, 10);
  config_.mutable_actor()->mutable_optim()->set_lr(0.1);
  for (const bool own : {true, false})
    EXPECT_THAT(refusal(own),
                AllOf(HasSubstr("complete"), HasSubstr("actor.optim.lr"), HasSubstr("raise")));
  config_.mutable_trainer()->set_total_training_steps(11);
  EXPECT_EQ(refusal(), "no error");
  config_.mutable_trainer()->set_total_training_steps(9);
  for (const bool own : {true, false})
    EXPECT_THAT(refusal(own), HasSubstr("is at RL step 10 and trainer.total_training_steps is 9"));
}

TEST_F(ResumeCheck, AnOlderCheckpointSaysWhatIsNotKnown) {
  saved_.inputs.reset();
  inputs_[0].digest = "sha256:9";
  config_.mutable_data()->add_train_files("/b.jsonl");
  at(5, 10);  // moved files alone are no reason to refuse a complete run
  EXPECT_THAT(ask().warnings, ElementsAre(HasSubstr("is of an older version of the program"),
                                          HasSubstr("data.train_files: [] -> [\"/b.jsonl\"]")));
  config_.set_seed(5);
  EXPECT_THAT(refusal(), HasSubstr("seed: 1 -> 5"));
}

TEST_F(ResumeCheck, AnOlderCheckpointSaysWhichWordsMeanSomethingElseNow) {
  saved_.inputs.reset();
  at(5, 9);
  const auto warning = [&] {
    saved_.run_config_yaml = config::config_to_yaml(config_);
    return ask().warnings.at(0);
  };
  EXPECT_THAT(warning(), AllOf(Not(HasSubstr("whitens")), Not(HasSubstr("gsm8k"))));
  EXPECT_TRUE(ask().older_program);
  config_.mutable_algorithm()->set_adv_estimator(
      proto::AlgorithmSection::REINFORCE_PLUS_PLUS_BASELINE);
  EXPECT_THAT(warning(), HasSubstr("reinforce-plus-plus-baseline whitens over loss tokens now"));
  config_.mutable_data()->set_env(proto::DataSection::GSM8K);
  EXPECT_THAT(warning(),
              HasSubstr("gsm8k environment reads and compares answers by other rules now"));
  saved_.inputs = inputs_;
  EXPECT_THAT(ask().warnings, IsEmpty());
  EXPECT_FALSE(ask().older_program);
}

TEST_F(ResumeCheck, AnImportedModelHasNoRunBehindIt) {
  saved_.state.reset();
  saved_.run_config_yaml.clear();
  saved_.inputs.reset();
  EXPECT_THAT(ask(/*own=*/false).warnings, IsEmpty());
}

TEST(RunFolderCheck, AnotherExperimentsMetricsAreNotWrittenOver) {
  const testing_support::ScratchPath scratch("orrery_run_folder_");
  const std::string folder = scratch.path().string();
  const std::string other = yaml([](proto::Config& c) { c.set_seed(5); });
  check_run_folder(folder, other);
  fs::create_directories(folder);
  write_file_atomic(scratch.path() / "config.yaml", yaml());
  check_run_folder(folder, other);
  write_file_atomic(scratch.path() / "metrics.jsonl", "");
  check_run_folder(folder, other);
  write_file_atomic(scratch.path() / "metrics.jsonl", "{}\n");
  EXPECT_THAT(error_of([&] { check_run_folder(folder, other); }),
              AllOf(HasSubstr("another experiment, without checkpoints: seed: 1 -> 5"),
                    Not(HasSubstr("\n"))));
  check_run_folder(folder, yaml());
  check_run_folder(folder,
                   yaml([](proto::Config& c) { c.mutable_actor()->mutable_optim()->set_lr(1); }));
}

TEST(Inputs, AreReadOnceAndNeverAnError) {
  const testing_support::ScratchPath scratch("orrery_inputs_");
  fs::create_directories(scratch.path() / "model");
  write_file_atomic(scratch.path() / "a", "abc");
  write_file_atomic(scratch.path() / "model/tokenizer.json", "{}");
  proto::Config config;
  config::fill_defaults(config);
  config.mutable_data()->add_train_files((scratch.path() / "a").string());
  config.mutable_data()->add_train_files((scratch.path() / "none").string());
  config.mutable_data()->add_val_files(scratch.path().string());
  config.mutable_sft()->add_text_files((scratch.path() / "a").string());
  config.mutable_model()->set_path((scratch.path() / "model").string());
  const auto labels = [&] {
    const std::vector<storage::InputDigest> inputs = read_inputs(config);
    std::map<std::string, std::string> found;
    for (size_t i = 0; i < inputs.size(); ++i) found[input_label(inputs, i)] = inputs[i].digest;
    return found;
  };
  auto found = labels();
  EXPECT_EQ(found.size(), 5u);
  EXPECT_EQ(found["data.train_files[0]"],
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(found["data.train_files[1]"], "unreadable: No such file or directory");
  EXPECT_THAT(found["data.val_files[0]"], HasSubstr("unreadable: "));
  EXPECT_THAT(found["model.path/config.json"], HasSubstr("unreadable: "));
  EXPECT_THAT(found["model.path/tokenizer.json"], HasSubstr("sha256:"));
  config.mutable_sft()->set_total_training_steps(1);
  EXPECT_EQ(labels()["sft.text_files[0]"], found["data.train_files[0]"]);
  config.mutable_sft()->add_train_files((scratch.path() / "a").string());
  config.mutable_sft()->add_val_files((scratch.path() / "a").string());
  EXPECT_EQ(labels()["sft.train_files[0]"], found["data.train_files[0]"]);
  EXPECT_EQ(labels()["sft.val_files[0]"], found["data.train_files[0]"]);
  const float weights[] = {1, 2}, swapped[] = {2, 1};
  const auto digest = [](const float* values) { return weights_input({}, {values, 2}).digest; };
  EXPECT_EQ(digest(weights), digest(weights));
  EXPECT_NE(digest(weights), digest(swapped));
}

}  // namespace
}  // namespace orrery::experiments
