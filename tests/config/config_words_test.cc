// Keys and values of other programs, and what is said of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "config/config_keys.h"
#include "config/foreign_keys.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"
#include "core/file.h"
#include "proto/config.pb.h"

namespace orrery::config {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

std::string error_of(const std::string& yaml, const std::string& override_text = "") {
  proto::Config config;
  ConfigReader reader(config);
  try {
    reader.read_yaml(yaml, "f.yaml");
    if (!override_text.empty()) reader.read_override(override_text);
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_code(), kExitUsage);
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    return e.what();
  }
  return "no error";
}

std::vector<std::string> split_keys(std::string_view keys) {
  std::vector<std::string> out;
  while (!keys.empty()) {
    const size_t comma = keys.find(", ");
    out.emplace_back(keys.substr(0, comma));
    keys = comma == std::string_view::npos ? "" : keys.substr(comma + 2);
  }
  return out;
}

TEST(ForeignKeys, EveryCounterpartExists) {
  const std::vector<std::string> own = all_keys(*proto::Config::descriptor());
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const ForeignKey& entry : foreign_keys()) {
    EXPECT_TRUE(seen.insert({entry.program, entry.key}).second) << entry.key << " twice";
    for (const std::string& key : split_keys(entry.ours)) {
      EXPECT_NE(std::find(own.begin(), own.end(), key), own.end()) << entry.key << " -> " << key;
    }
    EXPECT_TRUE(!entry.ours.empty() || !entry.note.empty()) << entry.key << " says nothing";
    // Keys that a note names.
    const std::string note(entry.note);
    for (size_t at = 0;
         (at = note.find_first_of("abcdefghijklmnopqrstuvwxyz", at)) != std::string::npos;) {
      const size_t end = std::min(
          note.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_.", at), note.size());
      std::string word = note.substr(at, end - at);
      while (word.ends_with('.')) word.pop_back();
      at = end;
      const std::string section = word.substr(0, word.find('.'));
      const bool is_ours = proto::Config::descriptor()->FindFieldByName(section) != nullptr;
      if (word.find('.') == std::string::npos || !is_ours) continue;
      EXPECT_NE(std::find(own.begin(), own.end(), word), own.end()) << entry.key << ": " << word;
    }
  }
  for (const ForeignValue& entry : foreign_values()) {
    EXPECT_NE(std::find(own.begin(), own.end(), entry.key), own.end()) << entry.key;
    EXPECT_EQ(entry.word.find('_'), std::string_view::npos) << entry.word;
  }
}

TEST(ForeignKeys, AnUnknownKeyOfAnotherProgramIsExplained) {
  const struct {
    const char *yaml, *says;
  } cases[] = {
      {"actor: {clip_ratio: 0.2}",
       "f.yaml:1: unknown key 'actor.clip_ratio'; "
       "verl's actor_rollout_ref.actor.clip_ratio is actor.clip_ratio_low and "
       "actor.clip_ratio_high here: set both; the second is 0.28 where it is not set"},
      {"clip_ratio: 0.2", "actor.clip_ratio_low and actor.clip_ratio_high"},
      {"data: {filter_overlong_prompts: true}", "data.on_error here: skip leaves"},
      {"actor: {use_kl_loss: true}", "actor.kl_loss_coef here: above 0"},
      {"rollout: {name: vllm}",
       "verl's actor_rollout_ref.rollout.name has no counterpart here: there is one engine"},
      {"kl_coef: 0.1", "actor.kl_loss_coef"},
      {"algorithm: {gamma: 1}", "there is no critic"},
      {"lam: 1", "no GAE"},
      {"learning_rate: 1e-6", "TRL's learning_rate is actor.optim.lr here"},
      {"num_generations: 8", "TRL's num_generations is rollout.n here"},
      {"beta: 0.1", "actor.kl_loss_coef"},
      {"actor: {beta: 0.1}", "actor.kl_loss_coef"},
      {"per_device_train_batch_size: 8", "data.train_batch_size here: prompts"},
      {"gradient_accumulation_steps: 8", "actor.ppo_max_token_len_per_gpu"},
      {"max_completion_length: 8", "data.max_response_length"},
      {"max_prompt_length: 8", "did you mean 'data.max_prompt_length'?"},
      {"temperature: 1", "did you mean 'rollout.temperature'?"},
      {"n_samples_per_prompt: 8", "OpenRLHF's n_samples_per_prompt is rollout.n here"},
      {"micro_rollout_batch_size: 8", "rollout.max_num_seqs"},
      {"train_batch_size: 128",
       "actor.ppo_mini_batch_size here: of OpenRLHF, which counts samples there"},
      {"init_kl_coef: 0.1", "actor.kl_loss_coef"},
      {"trainer: {total_epochs: 3}", "trainer.total_training_steps here: steps"},
      {"trainer: {nnodes: 3}", "mpirun -n"},
      {"trainer: {n_gpus_per_node: 3}", "mpirun -n"},
      {"trainer: {project_name: x}", "experiment_name"},
      {"trainer: {experiment_name: x}", "verl's trainer.experiment_name is experiment_name here"},
      {"trainer: {logger: [console]}", "trainer.tensorboard"},
      {"trainer: {default_local_dir: x}", "run_dir"},
      {"trainer: {resume_mode: auto}", "trainer.resume"},
      {"trainer: {val_before_train: true}", "trainer.test_freq"},
      {"trainer: {epochs: 3}", "f.yaml:1: unknown key 'trainer.epochs'"},
      {"rollout: {gpu_memory_utilization: 0.5}", "rollout.kv_cache_gb"},
      {"rollout: {tensor_model_parallel_size: 2}", "no tensor parallelism yet"},
      {"rollout: {enforce_eager: true}", "leave it out"},
      {"rollout: {val_kwargs: {n: 4}}", "rollout.val_temperature"},
      {"ref: {log_prob_micro_batch_size: 4}", "actor.kl_loss_coef"},
      {"critic: {optim: {lr: 1}}", "there is no critic yet"},
      {"reward_model: {enable: true}", "data.external.command"},
      {"custom_reward_function: {path: x.py}",
       "data.external.command here: with data.env external"},
      {"actor_rollout_ref: {actor: {clip_ratio: 0.2}}", "actor_rollout_ref.rollout.n is rollout.n"},
      {"data: {apply_chat_template_kwargs: {a: 1}}", "data.chat_template_kwargs"},
      // Ours, mistyped or elsewhere.
      {"trainer: {n: 8}", "did you mean 'rollout.n'?"},
      {"actor: {lr: 1}", "did you mean 'actor.optim.lr'?"},
      {"model: {dtype: bf16}", "did you mean 'model.compute_dtype'?"},
  };
  for (const auto& c : cases) EXPECT_THAT(error_of(c.yaml), HasSubstr(c.says)) << c.yaml;
}

TEST(ForeignKeys, AtAnyDepthOfAnOverride) {
  const struct {
    const char *text, *says;
  } cases[] = {
      {"actor_rollout_ref.actor.clip_ratio=0.2",
       "command line: unknown key 'actor_rollout_ref.actor.clip_ratio'; "
       "verl's actor_rollout_ref.actor.clip_ratio is actor.clip_ratio_low and "
       "actor.clip_ratio_high here: set both; the second is 0.28 where it is not set"},
      {"actor_rollout_ref.rollout.n=8",
       "command line: unknown key 'actor_rollout_ref.rollout.n'; "
       "verl's actor_rollout_ref.rollout.n is rollout.n here"},
      {"actor_rollout_ref.actor.optim.lr=1", "actor.optim.lr here"},
      {"actor_rollout_ref.rollout.name=vllm", "there is one engine"},
      {"actor_rollout_ref.rollout.val_kwargs.n=4", "rollout.val_n here"},
      {"actor_rollout_ref.ref.fsdp_config.param_offload=true", "reference model needs no settings"},
      {"actor_rollout_ref.actor.fsdp_config.param_offload=true",
       "the optimizer's state is sharded"},
      {"algorithm.kl_ctrl.kl_coef=0.1", "algorithm.kl_ctrl.kl_coef is actor.kl_loss_coef here"},
      {"algorithm.kl_ctrl.horizon=1", "actor.kl_loss_coef"},
      {"custom_reward_function.path=x.py", "data.external.command"},
      {"critic.optim.lr=1", "no critic yet"},
      {"reward_model.model.path=x", "no reward models yet"},
      {"trainer.learning_rate=1", "actor.optim.lr"},
      {"grpo.num_prompts_per_step=8",
       "NeMo-RL's grpo.num_prompts_per_step is data.train_batch_size here"},
      {"n-samples-per-prompt=8", "rollout.n here"},
      {"+trainer.nnodes=1",
       "command line: '+trainer.nnodes=1' begins with +: write trainer.nnodes=1"},
      {"++rollout.n=1", "command line: '++rollout.n=1' begins with ++: write rollout.n=1"},
      {"~critic",
       "command line: '~critic' begins with ~: keys cannot be removed, set one to its default"},
  };
  for (const auto& c : cases) EXPECT_THAT(error_of("", c.text), HasSubstr(c.says)) << c.text;
}

TEST(ForeignKeys, ValuesAreExplained) {
  const struct {
    const char *text, *says;
  } cases[] = {
      {"algorithm.adv_estimator=gae",
       "command line: algorithm.adv_estimator is 'gae': "
       "expected grpo, rloo, reinforce-plus-plus-baseline, reinforce-plus-plus, opo, gpg, "
       "grpo-passk, passk, gdpo, maxrl or remax; "
       "gae needs a critic, and there is none yet: the others need none"},
      {"algorithm.adv_estimator=reinforce", "OpenRLHF's reinforce is reinforce-plus-plus"},
      {"actor.kl_loss_type=low_var_kl",
       "expected k1, k2, k3, abs, k1-plus or k3-plus; verl's low_var_kl is k3"},
      {"actor.kl_loss_type=kl", "verl's kl is k1"},
      {"actor.kl_loss_type=mse", "verl's mse is k2"},
      {"actor.kl_loss_type=low_var_kl+", "verl's low_var_kl+ is k3-plus"},
      {"actor.loss_mode=clip_cov", "there is none yet: it chooses tokens by covariances"},
      {"rollout.top_k=-1", "it must be in [0, 1000000000]; 0 turns it off"},
      {"model.compute_dtype=BFloat16", "it is bf16"},
      {"rollout.compute_dtype=fp16", "there is no fp16 yet"},
      {"actor.loss_agg_mode=dr_grpo", "seq-mean-token-sum-norm"},
  };
  for (const auto& c : cases) EXPECT_THAT(error_of("", c.text), HasSubstr(c.says)) << c.text;
  // As verl spells them.
  for (const char* same :
       {"algorithm.adv_estimator=reinforce_plus_plus_baseline",
        "actor.loss_agg_mode=seq-mean-token-sum-norm", "actor.loss_agg_mode=token-mean",
        "actor.loss_mode=geo_mean", "actor.loss_mode=dppo_tv", "actor.kl_loss_type=abs"}) {
    EXPECT_EQ(error_of("", same), "no error") << same;
  }
}

/// A section of docs/migration.md, from its marker to the next.
std::string table_of(std::string_view program) {
  std::string text = "| " + std::string(program) + " | here | |\n|---|---|---|\n";
  for (const ForeignKey& entry : foreign_keys()) {
    if (entry.program != program) continue;
    std::string ours;
    for (const std::string& key : split_keys(entry.ours))
      ours += (ours.empty() ? "`" : ", `") + key + "`";
    std::string key(entry.key);
    if (key.ends_with('.')) key += '*';
    text += fmt::format("| `{}` | {} | {} |\n", key, ours.empty() ? "none" : ours, entry.note);
  }
  return text;
}

std::string values_table() {
  std::string text = "| key here | their value | |\n|---|---|---|\n";
  for (const ForeignValue& entry : foreign_values())
    text += fmt::format("| `{}` | `{}` | {} |\n", entry.key, entry.word, entry.note);
  return text;
}

TEST(ForeignKeys, DocsMigrationHasTheTable) {
  const std::filesystem::path path =
      std::filesystem::path(ORRERY_SOURCE_DIR) / "docs" / "migration.md";
  std::string text = read_file(path);
  for (const char* name : {"verl", "TRL", "OpenRLHF", "NeMo-RL", "values"}) {
    const std::string table = std::string_view(name) == "values" ? values_table() : table_of(name);
    const std::string marker = fmt::format("<!-- {}: written by test_config -->\n", name),
                      end = "<!-- end -->";
    const size_t begin = text.find(marker);
    ASSERT_NE(begin, std::string::npos) << marker;
    const size_t from = begin + marker.size(), to = text.find(end, from);
    ASSERT_NE(to, std::string::npos) << name;
    EXPECT_EQ(text.substr(from, to - from), table)
        << "docs/migration.md is not what config/foreign_keys.cc says; "
           "ORRERY_WRITE_DOCS=1 and this test write it";
    text.replace(from, to - from, table);
  }
  if (std::getenv("ORRERY_WRITE_DOCS") != nullptr) write_file_atomic(path, text);
}

TEST(ForeignKeys, DocsMigrationsExampleIsAConfig) {
  const std::filesystem::path path =
      std::filesystem::path(ORRERY_SOURCE_DIR) / "docs" / "migration.md";
  const std::string text = read_file(path), begin = "```yaml\n";
  size_t count = 0;
  for (size_t at = 0; (at = text.find(begin, at)) != std::string::npos; ++count) {
    at += begin.size();
    const std::string yaml = text.substr(at, text.find("```", at) - at);
    EXPECT_EQ(error_of(yaml), "no error") << yaml;
  }
  EXPECT_GE(count, 2u);
}

TEST(ForeignKeys, HostileNamesGetNoAdvice) {
  EXPECT_THAT(foreign_key_advice("", true), IsEmpty());
  EXPECT_THAT(foreign_key_advice(".", false), IsEmpty());
  EXPECT_THAT(foreign_key_advice(std::string(5000, '.'), false), IsEmpty());
  EXPECT_THAT(foreign_key_advice("zzzz.yyyy", false), IsEmpty());
}

}  // namespace
}  // namespace orrery::config
