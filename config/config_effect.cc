#include "config/config_effect.h"

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>

#include "config/config.h"
#include "config/config_keys.h"
#include "config/config_values.h"
#include "core/error.h"

namespace orrery::config {
namespace {

enum class Kind {
  kSwitch,  ///< `by` may turn the keys off if it was set, too
  kStrict   ///< the keys are an Error even then
};

struct EffectRule {
  std::string_view key;  ///< a key, or with '.' at its end a section and all keys in it
  std::string_view by;   ///< the key that decides whether they have an effect
  Kind kind;
  bool (*idle)(const proto::Config& config);
  std::string_view why;  ///< why they have none, and what to do
};

using proto::Config;

bool has_sft(const Config& c) { return c.sft().total_training_steps() > 0; }
bool is_constant(const proto::OptimSection& optim) {
  return optim.lr_scheduler_type() == proto::OptimSection::CONSTANT;
}

bool is_not_gdpo(const Config& config) {
  return config.algorithm().adv_estimator() != proto::AlgorithmSection::GDPO;
}

/// False for a name that is no device: that is told where devices are looked for.
bool nothing_to_correct(const Config& config) {
  try {
    return same_numerics(config);
  } catch (const Error&) {
    return false;
  }
}

bool is_none_of(const Config& c, std::initializer_list<proto::ActorSection::LossMode> modes) {
  return std::find(modes.begin(), modes.end(), c.actor().loss_mode()) == modes.end();
}

bool clips_nothing(const Config& c) {
  using Actor = proto::ActorSection;
  return !is_none_of(c, {Actor::SAPO, Actor::TOPR, Actor::REINFORCE, Actor::DRO});
}
constexpr std::string_view kClipsNothing =
    "actor.loss_mode is one of sapo, topr, reinforce and dro, which clip nothing: leave it out";

bool has_no_gate(const Config& c) { return is_none_of(c, {proto::ActorSection::SAPO}); }
constexpr std::string_view kHasNoGate =
    "it is of actor.loss_mode sapo and that is another: leave it out";

constexpr EffectRule kRules[] = {
    {"data.arithmetic.", "data.env", Kind::kStrict,
     [](const Config& c) { return c.data().env() != proto::DataSection::ARITHMETIC; },
     "it is of data.env arithmetic and data.env is another: leave it out"},
    {"data.constraint.", "data.env", Kind::kStrict,
     [](const Config& c) { return c.data().env() != proto::DataSection::CONSTRAINT; },
     "it is of data.env constraint and data.env is another: leave it out"},
    {"data.external.", "data.env", Kind::kStrict,
     [](const Config& c) { return c.data().env() != proto::DataSection::EXTERNAL; },
     "it is of data.env external and data.env is another: "
     "set data.env to external, or leave it out"},
    {"rollout.val_n", "rollout.val_temperature", Kind::kStrict,
     [](const Config& c) { return c.rollout().val_temperature() == 0; },
     "rollout.val_temperature is 0 (greedy), so that all samples of a prompt are the same: "
     "set that above 0, such as 0.6, or val_n to 1"},
    {"sft.", "sft.total_training_steps", Kind::kSwitch, [](const Config& c) { return !has_sft(c); },
     "sft.total_training_steps is 0, so that there is no SFT: set that, or leave it out"},
    {"sft.text_separator", "sft.text_files", Kind::kSwitch,
     [](const Config& c) { return has_sft(c) && c.sft().text_files().empty(); },
     "sft.text_files are not, which it would separate: set them, or leave it out"},
    {"sft.val_files", "trainer.test_freq", Kind::kSwitch,
     [](const Config& c) { return has_sft(c) && c.trainer().test_freq() == 0; },
     "trainer.test_freq is 0, so that their loss is never measured: set that, or leave them out"},
    {"sft.optim.min_lr_ratio", "sft.optim.lr_scheduler_type", Kind::kSwitch,
     [](const Config& c) { return has_sft(c) && is_constant(c.sft().optim()); },
     "sft.optim.lr_scheduler_type is constant: set that to cosine or linear, or leave it out"},
    {"data.arithmetic.flawed_fraction", "sft.total_training_steps", Kind::kSwitch,
     [](const Config& c) { return !has_sft(c); },
     "it is of SFT's demonstrations and sft.total_training_steps is 0: set that, or leave it out"},
    {"data.constraint.words", "data.constraint.words_per_prompt", Kind::kSwitch,
     [](const Config& c) { return c.data().constraint().words_per_prompt() == 0; },
     "data.constraint.words_per_prompt is 0: set that, or leave it out"},
    {"data.constraint.fixed_words", "data.constraint.words_per_prompt", Kind::kSwitch,
     [](const Config& c) { return c.data().constraint().words_per_prompt() == 0; },
     "data.constraint.words_per_prompt is 0: set that, or leave it out"},
    {"actor.kl_loss_type", "actor.kl_loss_coef", Kind::kSwitch,
     [](const Config& c) { return c.actor().kl_loss_coef() == 0; },
     "actor.kl_loss_coef is 0, so that there is no KL loss: set that above 0, or leave it out"},
    {"actor.clip_ratio_low", "actor.loss_mode", Kind::kStrict, clips_nothing, kClipsNothing},
    {"actor.clip_ratio_high", "actor.loss_mode", Kind::kStrict, clips_nothing, kClipsNothing},
    {"actor.clip_ratio_c", "actor.loss_mode", Kind::kStrict,
     [](const Config& c) {
       using Actor = proto::ActorSection;
       return is_none_of(c, {Actor::VANILLA, Actor::DPPO_TV, Actor::DPPO_KL});
     },
     "actor.loss_mode is another than vanilla, dppo-tv and dppo-kl, and has no such bound: "
     "leave it out"},
    {"actor.tau_pos", "actor.loss_mode", Kind::kStrict, has_no_gate, kHasNoGate},
    {"actor.tau_neg", "actor.loss_mode", Kind::kStrict, has_no_gate, kHasNoGate},
    {"actor.dro_beta", "actor.loss_mode", Kind::kStrict,
     [](const Config& c) { return is_none_of(c, {proto::ActorSection::DRO}); },
     "it is of actor.loss_mode dro and that is another: leave it out"},
    {"data.overlong_buffer.penalty_factor", "data.overlong_buffer.len", Kind::kSwitch,
     [](const Config& c) { return c.data().overlong_buffer().len() == 0; },
     "data.overlong_buffer.len is 0, so that there is no penalty: set that, or leave it out"},
    {"actor.optim.min_lr_ratio", "actor.optim.lr_scheduler_type", Kind::kSwitch,
     [](const Config& c) { return is_constant(c.actor().optim()); },
     "actor.optim.lr_scheduler_type is constant: set that to cosine or linear, or leave it out"},
    {"algorithm.norm_adv_by_std_in_grpo", "algorithm.adv_estimator", Kind::kStrict,
     [](const Config& c) {
       const auto estimator = c.algorithm().adv_estimator();
       return estimator != proto::AlgorithmSection::GRPO &&
              estimator != proto::AlgorithmSection::GRPO_PASSK &&
              estimator != proto::AlgorithmSection::PASSK;
     },
     "it is of algorithm.adv_estimator grpo, grpo-passk and passk and that is another: "
     "leave it out"},
    {"algorithm.passk_k", "algorithm.adv_estimator", Kind::kStrict,
     [](const Config& c) {
       return c.algorithm().adv_estimator() != proto::AlgorithmSection::PASSK;
     },
     "it is of algorithm.adv_estimator passk and that is another: set that, or leave it out"},
    {"algorithm.gdpo_reward_keys", "algorithm.adv_estimator", Kind::kStrict, is_not_gdpo,
     "it is of algorithm.adv_estimator gdpo and that is another: set that, or leave it out"},
    {"algorithm.gdpo_reward_weights", "algorithm.adv_estimator", Kind::kStrict, is_not_gdpo,
     "it is of algorithm.adv_estimator gdpo and that is another: set that, or leave it out"},
    {"algorithm.rollout_is_threshold", "rollout.compute_dtype", Kind::kSwitch, nothing_to_correct,
     "rollouts are of the learner's type (rollout.compute_dtype), "
     "so that their log-probs are the learner's to the bit and there is nothing to correct: "
     "leave it out"},
    {"trainer.test_freq", "trainer.total_training_steps", Kind::kSwitch,
     [](const Config& c) {
       return c.trainer().total_training_steps() == 0 &&
              (!has_sft(c) || c.sft().val_files().empty());
     },
     "there are no RL steps (trainer.total_training_steps is 0) and no sft.val_files, "
     "so that there is nothing to validate: set one of them, or leave it out"},
    {"trainer.max_ckpt_to_keep", "trainer.save_freq", Kind::kSwitch,
     [](const Config& c) { return c.trainer().save_freq() == -1; },
     "trainer.save_freq is -1, so that no checkpoint is written: set that, or leave it out"},
};

bool is_about(const EffectRule& rule, std::string_view key) {
  return rule.key.ends_with('.') ? key.starts_with(rule.key) && key != rule.by : key == rule.key;
}

/// Puts the file's sections of environments that the command line did not choose back
/// to their defaults.
void drop_other_environments(proto::Config& config, const ConfigReader& reader) {
  if (reader.source("data.env") != ConfigReader::kCommandLine) return;
  const auto drop = [&](google::protobuf::Message& section, const std::string& name) {
    for (int i = 0; i < section.GetDescriptor()->field_count(); ++i) {
      const auto* field = section.GetDescriptor()->field(i);
      if (reader.source(join_key(name, field->name())) != ConfigReader::kCommandLine)
        section.GetReflection()->ClearField(&section, field);
    }
  };
  proto::DataSection& data = *config.mutable_data();
  if (data.env() != proto::DataSection::ARITHMETIC)
    drop(*data.mutable_arithmetic(), "data.arithmetic");
  if (data.env() != proto::DataSection::CONSTRAINT)
    drop(*data.mutable_constraint(), "data.constraint");
  if (data.env() != proto::DataSection::EXTERNAL) drop(*data.mutable_external(), "data.external");
  fill_defaults(config);
}

}  // namespace

void check_effect(proto::Config& config, const ConfigReader& reader) {
  Config defaults;
  fill_defaults(defaults);
  const auto usual = config_values(config_to_yaml(defaults));
  drop_other_environments(config, reader);
  const auto is_typed = [&](std::string_view key) {
    return reader.source(std::string(key)) == ConfigReader::kCommandLine;
  };
  const auto values = config_values(config_to_yaml(config));
  for (const EffectRule& rule : kRules) {
    if (!rule.idle(config)) continue;
    const bool decided = !reader.source(std::string(rule.by)).empty();
    for (const auto& [key, value] : values) {
      const std::string where = reader.source(key);
      if (!is_about(rule, key) || where.empty() || usual.at(key) == value) continue;
      const bool off_on_purpose = decided && (is_typed(rule.by) || !is_typed(key));
      if (rule.kind == Kind::kSwitch && off_on_purpose) continue;
      fail_usage("{}: {} is set, but {}", where, key, rule.why);
    }
  }
}

}  // namespace orrery::config
