#include "experiments/resume_rules.h"

#include "config/config.h"
#include "config/config_values.h"
#include "config/yaml_to_proto.h"
#include "core/error.h"

namespace orrery::experiments {
namespace {

using enum ResumeRule;

constexpr ResumeRuleOfKey kRules[] = {
    {"experiment_name", kFixed},
    {"run_dir", kFree},
    {"seed", kFixed},
    {"device", kFree},

    {"model.", kFixed},
    {"model.path", kContent},
    {"model.chat_template_file", kContent},

    {"data.", kFixed},
    {"data.train_files", kContent},
    {"data.val_files", kContent},
    {"data.val_size", kMeasure},
    {"data.external.command", kTold},  // its program's text is not compared either
    {"data.external.workers", kFree},
    {"data.external.timeout_s", kFree},
    {"data.external.start_timeout_s", kFree},
    {"data.external.retries", kFree},
    {"data.overlong_buffer.", kTold},

    {"sft.", kFixed},
    {"sft.text_files", kContent},
    {"sft.train_files", kContent},
    {"sft.val_files", kMeasure},
    {"sft.total_training_steps", kTold},
    {"sft.optim.", kTold},

    {"rollout.n", kFixed},
    {"rollout.temperature", kFixed},
    {"rollout.top_p", kFixed},
    {"rollout.top_k", kFixed},
    {"rollout.min_p", kFixed},
    {"rollout.stop", kFixed},
    {"rollout.max_num_seqs", kFree},
    {"rollout.max_num_batched_tokens", kFree},
    {"rollout.kv_cache_gb", kFree},
    {"rollout.val_temperature", kMeasure},
    {"rollout.val_n", kMeasure},
    {"rollout.compute_dtype", kTold},
    {"rollout.device", kTold},

    {"algorithm.adv_estimator", kFixed},
    {"algorithm.norm_adv_by_std_in_grpo", kFixed},
    {"algorithm.passk_k", kFixed},
    {"algorithm.gdpo_reward_keys", kFixed},
    {"algorithm.gdpo_reward_weights", kFixed},
    {"algorithm.verify_logprobs", kFree},
    {"algorithm.rollout_is_threshold", kTold},

    {"actor.ppo_mini_batch_size", kFixed},
    {"actor.ppo_epochs", kFixed},
    {"actor.ppo_max_token_len_per_gpu", kFree},
    {"actor.clip_ratio_low", kTold},
    {"actor.clip_ratio_high", kTold},
    {"actor.clip_ratio_c", kTold},
    {"actor.tau_pos", kTold},
    {"actor.tau_neg", kTold},
    {"actor.dro_beta", kTold},
    {"actor.off_policy_mask_threshold", kTold},
    {"actor.mask_truncated_completions", kTold},
    {"actor.entropy_coeff", kTold},
    {"actor.kl_loss_coef", kTold},
    {"actor.kl_loss_type", kFixed},
    {"actor.loss_agg_mode", kFixed},
    {"actor.loss_mode", kFixed},
    {"actor.optim.", kTold},
    {"actor.prefix_tree_max_tokens", kTold},  // part of the last bits

    {"trainer.total_training_steps", kTold},
    {"trainer.save_freq", kFree},
    {"trainer.max_ckpt_to_keep", kFree},
    {"trainer.test_freq", kFree},
    {"trainer.resume", kFree},
    {"trainer.rollout_save_freq", kFree},
    {"trainer.tensorboard", kFree},
    {"trainer.resume_numerics", kFree},

    {"cluster.placement", kFree},
    {"cluster.learners", kFree},
    {"cluster.threads", kFree},
    {"cluster.gradient_shards", kTold},  // part of the last bits, as is the next
    {"cluster.reduce", kTold},
    {"cluster.data_plane", kFree},
    {"cluster.hang_warn_s", kFree},
    {"cluster.hang_timeout_s", kFree},
};

}  // namespace

std::span<const ResumeRuleOfKey> resume_rules() { return kRules; }

ResumeRule resume_rule(std::string_view key) {
  const ResumeRuleOfKey* best = nullptr;
  for (const ResumeRuleOfKey& entry : kRules) {
    const bool fits = entry.key.ends_with('.') ? key.starts_with(entry.key) : key == entry.key;
    if (fits && (best == nullptr || entry.key.size() > best->key.size())) best = &entry;
  }
  return best != nullptr ? best->rule : kFixed;
}

std::vector<ConfigChange> config_changes(const std::string& before_yaml,
                                         const std::string& after_yaml) {
  proto::Config defaults;
  config::fill_defaults(defaults);
  const auto usual = config::config_values(config::config_to_yaml(defaults));
  const auto before = config::config_values(before_yaml), after = config::config_values(after_yaml);
  std::vector<ConfigChange> changes;
  for (const auto& [key, value] : after) {
    const ResumeRule rule = resume_rule(key);
    if (rule == kFree) continue;
    auto it = before.find(key);
    if (it == before.end() && (it = usual.find(key)) == usual.end()) continue;
    if (it->second != value) changes.push_back({key, it->second, value, rule});
  }
  return changes;
}

std::string to_text(std::span<const ConfigChange> changes) {
  constexpr size_t kShown = 8;
  std::string text;
  for (size_t i = 0; i < std::min(changes.size(), kShown); ++i) {
    text += fmt::format("{}{}: {} -> {}", i == 0 ? "" : ", ", changes[i].key, changes[i].before,
                        changes[i].after);
  }
  if (changes.size() > kShown) text += fmt::format(" and {} more", changes.size() - kShown);
  return text;
}

}  // namespace orrery::experiments
