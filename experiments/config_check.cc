#include "experiments/config_check.h"

#include <algorithm>

#include "actors/prompt_template.h"
#include "comm/topology.h"
#include "config/config.h"
#include "config/config_external.h"
#include "config/config_keys.h"
#include "core/error.h"
#include "experiments/job.h"
#include "kernels/numerics.h"
#include "kernels/sampling.h"
#include "learners/advantage.h"

namespace orrery::experiments {
namespace {

int64_t mini_batch_prompts(const proto::Config& config) {
  const int64_t size = config.actor().ppo_mini_batch_size();
  return size == 0 ? config.data().train_batch_size() : size;
}

/// The divisor of `whole` that is at least `least` and nearest to `wanted`, which lies
/// between the two.
int64_t nearest_divisor(int64_t whole, int64_t wanted, int64_t least) {
  for (int64_t away = 0;; ++away) {
    if (wanted - away >= least && whole % (wanted - away) == 0) return wanted - away;
    if (wanted + away <= whole && whole % (wanted + away) == 0) return wanted + away;
  }
}

void check_batches(const proto::Config& config, const comm::Topology& topology) {
  const int learners = topology.learners.size(comm::Axis::kDp);  // that share samples
  const int64_t prompts = config.data().train_batch_size(), mini = mini_batch_prompts(config);
  if (mini > prompts && prompts >= learners) {
    fail_usage(
        "actor.ppo_mini_batch_size is {} prompts but data.train_batch_size has only {} (both count "
        "prompts, not samples): lower the first to {} or less, or 0 for one update a step",
        mini, prompts, prompts);
  }
  if (std::min(mini, prompts) < learners) {
    fail_usage(
        "{} learner ranks share mini-batches of {} prompt(s), so some would have no work: "
        "start fewer ranks, or raise {}",
        learners, std::min(mini, prompts),
        mini >= prompts ? "data.train_batch_size" : "actor.ppo_mini_batch_size");
  }
  if (prompts % mini != 0) {
    fail_usage(
        "actor.ppo_mini_batch_size ({} prompts) does not divide data.train_batch_size ({} "
        "prompts): set it to {}, or train_batch_size to {}",
        mini, prompts, nearest_divisor(prompts, mini, learners), (prompts / mini + 1) * mini);
  }
  if (prompts < topology.actors()) {
    fail_usage(
        "{} actor ranks share data.train_batch_size = {} prompt(s) a step, "
        "so some would have no work: start fewer ranks, or raise data.train_batch_size",
        topology.actors(), prompts);
  }
}

void check_sft(const proto::Config& config, const comm::Topology& topology) {
  const proto::SftSection& sft = config.sft();
  const int learners = topology.learners.size(comm::Axis::kDp);
  if (sft.train_batch_size() < learners) {
    fail_usage(
        "{} learner ranks share sft.train_batch_size = {} example(s) a step, "
        "so some would have no work: start fewer ranks, or raise sft.train_batch_size",
        learners, sft.train_batch_size());
  }
  if (!sft.text_files().empty() && !sft.train_files().empty()) {
    fail_usage(
        "sft.text_files and sft.train_files are both given, and a run learns from one kind: "
        "leave one of them out");
  }
  if (!sft.text_files().empty() && sft.text_separator().empty()) {
    fail_usage(
        "sft.text_separator is empty: give the text between the documents of sft.text_files");
  }
}

/// Checks the temperature in float32, as the engine has it. A value that rounds to 0
/// there is refused, as it is not meant to be greedy.
void check_temperature(const char* key, double value) {
  if (value == 0 || static_cast<float>(value) >= kernels::kMinTemperature) return;
  fail_usage(
      "{} is {}: float32 logits are multiplied by its inverse, which would overflow; "
      "it must be 0 (greedy) or at least {}",
      key, value, kernels::kMinTemperature);
}

/// Checks that the policy loss is aggregated as it is meant to be, and has its own
/// keys.
void check_loss(const proto::ActorSection& actor) {
  using Actor = proto::ActorSection;
  const Actor::LossMode mode = actor.loss_mode();
  const bool is_luspo = mode == Actor::GSPO && actor.loss_agg_mode() == Actor::SEQ_MEAN_TOKEN_SUM;
  const bool is_mean_of_means =
      mode == Actor::GSPO || mode == Actor::GEO_MEAN || mode == Actor::SAPO;
  if (is_mean_of_means && actor.loss_agg_mode() != Actor::SEQ_MEAN_TOKEN_MEAN && !is_luspo) {
    fail_usage(
        "actor.loss_mode is {}, which is a loss of whole responses: "
        "set actor.loss_agg_mode to seq-mean-token-mean{}",
        config::enum_word(*Actor::LossMode_descriptor()->FindValueByNumber(mode)),
        mode == Actor::GSPO ? " (or to seq-mean-token-sum, which is LUSPO)" : "");
  }
  if (mode == Actor::DRO && actor.dro_beta() == 0) {
    fail_usage(
        "actor.loss_mode is dro but actor.dro_beta is 0, so that nothing would hold the policy: "
        "set it above 0, or loss_mode to reinforce");
  }
  const double c = actor.clip_ratio_c();
  if (c > 0 && c <= 1) {
    fail_usage(
        "actor.clip_ratio_c is {}: the dual clip's bound must be above 1 (3 is usual), "
        "or 0 to turn it off",
        c);
  }
}

/// Checks the keys that choose an estimator and set it, one with the other.
void check_estimator(const proto::AlgorithmSection& algorithm, int64_t samples) {
  if (samples < 2 && learners::compares_samples(algorithm.adv_estimator())) {
    fail_usage(
        "rollout.n is 1: algorithm.adv_estimator compares the samples of one prompt, "
        "and with one of them every advantage is 0; "
        "set rollout.n to 2 or more (8 or 16 are usual), or the estimator to reinforce-plus-plus "
        "or remax, which compare none");
  }
  if (algorithm.adv_estimator() == proto::AlgorithmSection::PASSK &&
      algorithm.passk_k() >= samples) {
    fail_usage(
        "algorithm.passk_k is {} but rollout.n is {}: passk compares the sets of passk_k samples "
        "that a prompt's samples form, so that there must be more of these: "
        "lower passk_k, or raise rollout.n",
        algorithm.passk_k(), samples);
  }
  if (algorithm.adv_estimator() != proto::AlgorithmSection::GDPO) return;
  const auto& keys = algorithm.gdpo_reward_keys();
  if (keys.empty()) {
    fail_usage(
        "algorithm.adv_estimator is gdpo, but algorithm.gdpo_reward_keys is empty: "
        "list the parts of the reward to learn from (metrics have them as reward_extra/NAME/mean)");
  }
  for (auto key = keys.begin(); key != keys.end(); ++key) {
    if (std::find(keys.begin(), key, *key) == key) continue;
    fail_usage(
        "algorithm.gdpo_reward_keys has '{}' twice: leave one out, and weigh it by "
        "algorithm.gdpo_reward_weights",
        *key);
  }
  const int weights = algorithm.gdpo_reward_weights_size();
  if (weights != 0 && weights != keys.size()) {
    fail_usage(
        "algorithm.gdpo_reward_weights has {} number(s) but algorithm.gdpo_reward_keys has {} "
        "part(s): give one weight for each part, or none",
        weights, keys.size());
  }
  const auto& values = algorithm.gdpo_reward_weights();
  if (weights != 0 && std::all_of(values.begin(), values.end(), [](double w) { return w == 0; })) {
    fail_usage(
        "algorithm.gdpo_reward_weights has zeros alone, so that nothing would be learned: "
        "give a part of the reward another weight, or leave the key out (1 each)");
  }
}

void check_rl(const proto::Config& config, const comm::Topology& topology) {
  const proto::RolloutSection& rollout = config.rollout();
  if (config::rollout_device(config) != config::device(config) &&
      topology.placement != proto::ClusterSection::SPLIT) {
    fail_usage(
        "rollout.device is {} but device is {}: colocated ranks generate where they learn, so "
        "leave it `same`, or set cluster.placement=split (2 ranks or more), where ranks that only "
        "generate have their own",
        rollout.device(), config.device());
  }
  if (config::rollout_compute_dtype(config) != config::compute_dtype(config) &&
      topology.placement != proto::ClusterSection::SPLIT) {
    fail_usage(
        "rollout.compute_dtype is {} but model.compute_dtype is {}: "
        "colocated ranks generate with the very weights they learn on, so leave it `same`, "
        "or set cluster.placement=split (2 ranks or more), "
        "where ranks that only generate have their own",
        dtype_name(config::rollout_compute_dtype(config)),
        dtype_name(config::compute_dtype(config)));
  }
  if (rollout.temperature() == 0) {
    fail_usage(
        "rollout.temperature is 0 (greedy): training needs samples that differ, so set it above 0, "
        "such as 1.0 (rollout.val_temperature is for validation)");
  }
  check_estimator(config.algorithm(), rollout.n());
  check_loss(config.actor());
  const int64_t buffer = config.data().overlong_buffer().len();
  if (buffer > 0 && config.algorithm().adv_estimator() == proto::AlgorithmSection::GDPO) {
    fail_usage(
        "data.overlong_buffer takes from the reward, and algorithm.adv_estimator gdpo learns from "
        "parts of it alone: set data.overlong_buffer.len to 0, or another estimator");
  }
  if (buffer > config.data().max_response_length()) {
    fail_usage(
        "data.overlong_buffer.len is {} but data.max_response_length is {}: the buffer is the end "
        "of the longest response, so lower it (DAPO has a fifth of that length)",
        buffer, config.data().max_response_length());
  }
}

/// Whether the environment makes its problems itself, so that it reads no files.
bool generates_problems(proto::DataSection::Env env) {
  switch (env) {
    case proto::DataSection::ARITHMETIC:
    case proto::DataSection::CONSTRAINT:
      return true;
    case proto::DataSection::GSM8K:
    case proto::DataSection::EXTERNAL:
      return false;
  }
  fail_usage("data.env: unknown environment {}", int{env});
}

/// Checks that the JSONL files which are needed are given.
void check_files(const proto::Config& config, ConfigUse use) {
  const proto::DataSection& data = config.data();
  if (use == ConfigUse::kEvaluation) {
    if (data.val_files().empty()) {
      fail_usage(
          "there is nothing to evaluate on: set data.val_files to one or more JSONL files "
          "(data.train_files are not read)");
    }
    return;
  }
  const bool rl = config.trainer().total_training_steps() > 0;
  const bool demonstrations = learns_demonstrations(config);
  if (data.train_files().empty() && (rl || demonstrations)) {
    fail_usage(
        "data.env {} reads its problems from files: "
        "set data.train_files to one or more JSONL files",
        config::env_name(data));
  }
  if (data.val_files().empty() && rl && config.trainer().test_freq() != 0) {
    fail_usage(
        "trainer.test_freq is {} but there is nothing to validate on: "
        "set data.val_files, or test_freq to 0",
        config.trainer().test_freq());
  }
}

void check_data(const proto::Config& config, ConfigUse use) {
  const proto::DataSection& data = config.data();
  if (data.env() != proto::DataSection::GSM8K) {
    const bool rule = data.reward_rule() != proto::AUTO;
    if (rule || data.answer_extraction() != proto::DataSection::AUTO) {
      fail_usage(
          "data.{} is set, but it is for data.env gsm8k, and data.env {} has its own rewards: "
          "remove it",
          rule ? "reward_rule" : "answer_extraction", config::env_name(data));
    }
  }
  actors::check_prompt_template(data.prompt_template());
  if (!data.apply_chat_template() && data.has_system_prompt() && !data.system_prompt().empty()) {
    fail_usage(
        "data.system_prompt is set but data.apply_chat_template is not, "
        "and only a chat has such a message: set it, or write the text into data.prompt_template");
  }
  if (!data.apply_chat_template() && config.model().has_chat_template_file()) {
    fail_usage(
        "model.chat_template_file is set but data.apply_chat_template is not: "
        "set it, or leave the file out");
  }
  if (!data.apply_chat_template() && data.chat_template_kwargs_size() > 0) {
    fail_usage(
        "data.chat_template_kwargs is set but data.apply_chat_template is not: "
        "set it, or leave the variables out");
  }
  config::check_external(data);
  if (!generates_problems(data.env())) {
    check_files(config, use);
  } else if (!data.train_files().empty() || !data.val_files().empty()) {
    fail_usage(
        "data.env {} generates its problems, so data.train_files and data.val_files would be "
        "ignored: remove them, or set data.env to gsm8k, or to external for a reward of your own",
        config::env_name(data));
  }
  if (data.env() != proto::DataSection::CONSTRAINT) return;
  const proto::ConstraintSection& constraint = data.constraint();
  // The environment has a list of its own for a config without words.
  if (constraint.words_size() > 0 && constraint.words_per_prompt() > constraint.words_size()) {
    fail_usage(
        "data.constraint.words_per_prompt is {} but data.constraint.words lists {} word(s): "
        "list more words, or lower it",
        constraint.words_per_prompt(), constraint.words_size());
  }
  if (constraint.max_words() > 0 && constraint.min_words() > constraint.max_words()) {
    fail_usage("data.constraint.min_words is {} but max_words is {}: no response can have both",
               constraint.min_words(), constraint.max_words());
  }
  if (constraint.words_per_prompt() == 0 && constraint.min_words() == 0 &&
      constraint.max_words() == 0 && constraint.ending().empty()) {
    fail_usage(
        "data.env constraint asks for nothing, so every reward would be equal: "
        "set words_per_prompt, min_words, max_words or ending of data.constraint");
  }
}

/// "1 prompt", "2 prompts".
std::string count(int64_t number, const char* noun) {
  return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

/// What SFT learns from.
std::string sft_data_text(const proto::SftSection& sft) {
  std::string text = "the environment's demonstrations";
  if (!sft.text_files().empty()) text = "text of " + count(sft.text_files_size(), "file");
  if (!sft.train_files().empty()) text = "rows of " + count(sft.train_files_size(), "file");
  text += fmt::format(", at most {} tokens each", sft.max_length());
  if (!sft.val_files().empty())
    text += "; val loss of rows of " + count(sft.val_files_size(), "file");
  return text;
}

/// One of `parts` equal shares, which may not be a whole number.
std::string share(int64_t whole, int64_t parts) {
  if (whole % parts == 0) return std::to_string(whole / parts);
  const double numerator = whole, denominator = parts;
  return fmt::format("about {:.1f}", numerator / denominator);
}

}  // namespace

void check_config(const proto::Config& config, int ranks, ConfigUse use) {
  if (config.model().path().empty()) {
    fail_usage(
        "model.path is not set: give the folder of a Hugging Face model, "
        "such as model.path=models/SmolLM2-135M");
  }
  if (config.has_run_dir() && config.run_dir().empty())
    fail_usage("run_dir is empty: give the folder for metrics, rollouts and checkpoints");
  if (config.experiment_name().empty()) fail_usage("experiment_name is empty: give the run a name");
  // A device that this build has, and one that computes with these types.
  const Device device = config::device(config), rollout_device = config::rollout_device(config);
  kernels::numerics_class(device, config::compute_dtype(config));
  kernels::numerics_class(rollout_device, config::rollout_compute_dtype(config));
  for (const auto& [key, its] : {std::pair("device", device), {"rollout.device", rollout_device}}) {
    if (config.cluster().data_plane() != proto::ClusterSection::NCCL ||
        its.type == DeviceType::kCuda)
      continue;
    fail_usage(
        "cluster.data_plane is nccl but {} is {}, and NCCL is for CUDA devices: set {} to cuda, or "
        "cluster.data_plane to auto",
        key, device_name(its), key);
  }
  const comm::Topology topology = comm::make_topology(config.cluster(), ranks);
  check_data(config, use);
  for (const std::string& stop : config.rollout().stop()) {
    if (stop.empty())
      fail_usage("rollout.stop has an empty text: give the text to stop at, or leave it out");
  }
  check_temperature("rollout.temperature", config.rollout().temperature());
  check_temperature("rollout.val_temperature", config.rollout().val_temperature());
  if (use == ConfigUse::kEvaluation) return;
  if (config.sft().total_training_steps() > 0) check_sft(config, topology);
  if (config.trainer().total_training_steps() > 0) {
    check_rl(config, topology);
    check_batches(config, topology);
  }
}

namespace {

/// The largest power of two that is at most `limit`, which is 1 or more.
int64_t power_of_two_within(int64_t limit) {
  int64_t power = 1;
  while (power <= limit / 2) power *= 2;
  return power;
}

/// Says how many ranks have no work. Prompts fill the first gradient shards, one each,
/// so with few prompts the last ranks have none.
std::string idle_learners(int64_t prompts, int64_t shards, int64_t learners) {
  const int64_t each = shards / learners, working = (prompts + each - 1) / each;
  if (working >= learners) return "";
  return fmt::format("; {} of {} ranks have no work: lower cluster.gradient_shards to {}",
                     learners - working, learners,
                     std::max(power_of_two_within(prompts), learners));
}

}  // namespace

std::string describe_batch(const proto::Config& config, int ranks) {
  const comm::Topology topology = comm::make_topology(config.cluster(), ranks);
  const int64_t learners = topology.learners.size(comm::Axis::kDp),
                shards = config.cluster().gradient_shards();
  const int64_t prompts = config.data().train_batch_size(), n = config.rollout().n();
  const int64_t mini = mini_batch_prompts(config), epochs = config.actor().ppo_epochs();
  const int64_t mini_batches = prompts / mini, updates = mini_batches * epochs;
  std::string out;
  const auto line = [&out](const char* what, const std::string& text) {
    out += fmt::format("{:<16}{}\n", what, text);
  };

  line("ranks",
       fmt::format("{}: {} learning, {} generating ({})", ranks, topology.learners.size(),
                   topology.actors(),
                   topology.placement == proto::ClusterSection::SPLIT ? "split" : "colocated"));
  const std::string corrected =
      config::same_numerics(config)
          ? ""
          : fmt::format(": log-probs are recomputed, importance weights capped at {}",
                        config.algorithm().rollout_is_threshold());
  const bool other_dtype = config::rollout_compute_dtype(config) != config::compute_dtype(config);
  if (config::rollout_device(config) != config::device(config)) {
    line("rollout device",
         fmt::format("{}, learners {}{}", device_name(config::rollout_device(config)),
                     device_name(config::device(config)), other_dtype ? "" : corrected));
  }
  if (other_dtype) {
    line("rollout dtype",
         fmt::format("{}, learners {}{}", dtype_name(config::rollout_compute_dtype(config)),
                     dtype_name(config::compute_dtype(config)), corrected));
  }
  const proto::SftSection& sft = config.sft();
  if (sft.total_training_steps() > 0) {
    line("SFT step",
         fmt::format("{}, one optimizer step; {} a learner rank, {} a gradient shard; {}",
                     count(sft.train_batch_size(), "example"),
                     share(sft.train_batch_size(), learners), share(sft.train_batch_size(), shards),
                     count(sft.total_training_steps(), "step")));
    if (!learns_demonstrations(config) || !sft.val_files().empty())
      line("SFT data", sft_data_text(sft));
  }
  if (config.trainer().total_training_steps() == 0) {
    line("RL step", "none: trainer.total_training_steps is 0");
    return out;
  }
  line("RL step", fmt::format("{} x {} = {}; {}", count(prompts, "prompt"), count(n, "sample"),
                              count(prompts * n, "sample"),
                              count(config.trainer().total_training_steps(), "step")));
  line("mini-batch",
       fmt::format(
           "{} = {}; {} a step x {} = {} a step", count(mini, "prompt"), count(mini * n, "sample"),
           mini_batches == 1 ? "1 mini-batch" : fmt::format("{} mini-batches", mini_batches),
           count(epochs, "epoch"), count(updates, "optimizer step")));
  line("learner rank",
       fmt::format("{} prompts = {} samples of a mini-batch, in {} of {}{}", share(mini, learners),
                   share(mini * n, learners), count(shards / learners, "gradient shard"), shards,
                   idle_learners(mini, shards, learners)));
  line("gradient shard",
       fmt::format("{} prompts = {} samples of a mini-batch{}", share(mini, shards),
                   share(mini * n, shards), mini < shards ? "; some shards may be empty" : ""));
  line("actor rank",
       fmt::format("{} prompts = {} samples of a step, leased as it has room",
                   share(prompts, topology.actors()), share(prompts * n, topology.actors())));
  line("sequence",
       fmt::format("at most {} + {} = {} tokens (prompt + response)",
                   config.data().max_prompt_length(), config.data().max_response_length(),
                   config.data().max_prompt_length() + config.data().max_response_length()));
  return out;
}

}  // namespace orrery::experiments
