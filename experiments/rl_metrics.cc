#include "experiments/rl_metrics.h"

#include <algorithm>
#include <cmath>

#include "core/log.h"
#include "core/span.h"
#include "experiments/overlong.h"

namespace orrery::experiments {
namespace {

int64_t loss_tokens(const rollout::Trajectory& t) {
  return std::count(t.loss_mask.begin(), t.loss_mask.end(), uint8_t{1});
}

double sequence_tokens(const rollout::Trajectory& t) {
  return t.prompt_tokens.size() + t.tokens.size();
}

/// Sums of the sequences' tokens over consecutive parts, as if samples were dealt to
/// the learners in order.
void add_unbalanced_seqlen(Metrics& metrics, Span<const double> sequences, int parts) {
  Summary sums;
  for (int64_t part = 0; part < parts; ++part) {
    double sum = 0;
    const int64_t end = (part + 1) * sequences.size() / parts;
    for (int64_t i = part * sequences.size() / parts; i < end; ++i) sum += sequences[i];
    sums.add(sum);
  }
  metrics["global_seqlen/min"] = sums.min();
  metrics["global_seqlen/max"] = sums.max();
  metrics["global_seqlen/minmax_diff"] = sums.max() - sums.min();
  metrics["global_seqlen/mean"] = sums.mean();
}

void add_timings(Metrics& metrics, const std::map<std::string, double>& timings,
                 double response_tokens, double all_tokens) {
  for (const auto& [name, seconds] : timings) {
    metrics["timing_s/" + name] = seconds;
    const bool generation = name == "gen";
    if (generation || name == "ref" || name == "adv" || name == "update_actor") {
      metrics["timing_per_token_ms/" + name] =
          seconds * 1000 / (generation ? response_tokens : all_tokens);
    }
  }
}

/// What a step's samples add up to, in prompt and sample order.
struct SampleSums {
  Summary scores, rewards, responses, prompts, entropy, turns;
  std::map<std::string, Summary> extras;
  Array<double> sequences;  // tokens of each
  double full_responses = 0, full_prompts = 0, empty = 0, uniform_groups = 0;
  double all_tokens = 0, response_tokens = 0;

  void add(const rollout::Group& group, const proto::DataSection& data) {
    bool uniform = true;
    for (const rollout::Trajectory& t : group.samples) {
      add(t, data);
      uniform = uniform && t.reward == group.samples.front().reward;
    }
    uniform_groups += uniform ? 1 : 0;
  }

  void add(const rollout::Trajectory& t, const proto::DataSection& data) {
    const int64_t response = std::ssize(t.tokens), prompt = std::ssize(t.prompt_tokens);
    if (response > 0) {  // an empty response is an aborted one to verl
      scores.add(t.reward);
      rewards.add(t.reward + overlong_penalty(response, data));
    }
    responses.add(response);
    prompts.add(prompt);
    sequences.push_back(sequence_tokens(t));
    all_tokens += sequences.back();
    response_tokens += response;
    full_responses += response == data.max_response_length() ? 1 : 0;
    full_prompts += prompt == data.max_prompt_length() ? 1 : 0;
    empty += response == 0 ? 1 : 0;
    for (int64_t i = 0; i < response; ++i) {
      if (t.loss_mask[i] != 0) entropy.add(t.entropies[i]);
    }
    turns.add(count_turns(t));
    for (const auto& [name, value] : t.reward_extra) extras[name].add(value);
  }
};

}  // namespace

std::vector<learners::GroupRewards> group_rewards(std::span<const rollout::Group> groups,
                                                  std::span<const float> greedy_rewards) {
  std::vector<learners::GroupRewards> result;
  for (const rollout::Group& group : groups) {
    learners::GroupRewards& rewards = result.emplace_back();
    rewards.prompt_index = group.prompt_index;
    for (const rollout::Trajectory& t : group.samples) {
      rewards.rewards.push_back(t.reward);
      rewards.loss_tokens.push_back(loss_tokens(t));
      rewards.parts.push_back(t.reward_extra);
    }
    if (!greedy_rewards.empty()) rewards.greedy_reward = greedy_rewards[result.size() - 1];
  }
  return result;
}

int count_turns(const rollout::Trajectory& sample) {
  int turns = 1;
  for (size_t i = 0; i < sample.tokens.size(); ++i)
    turns += i == 0 || sample.loss_mask[i] != sample.loss_mask[i - 1] ? 1 : 0;
  return turns;
}

SampleMeans add_step_metrics(Metrics& metrics, std::span<const rollout::Group> groups,
                             const std::map<std::string, double>& timings,
                             const proto::Config& config, const comm::Topology& topology) {
  SampleSums sums;
  for (const rollout::Group& group : groups) sums.add(group, config.data());
  sums.scores.write(metrics, "critic/score");
  sums.rewards.write(metrics, "critic/rewards");
  sums.responses.write(metrics, "response_length");
  sums.prompts.write(metrics, "prompt_length");
  sums.turns.write(metrics, "num_turns");
  const double samples = std::max<int64_t>(sums.responses.count(), 1);
  metrics["response_length/clip_ratio"] = sums.full_responses / samples;
  metrics["prompt_length/clip_ratio"] = sums.full_prompts / samples;
  metrics["response/aborted_ratio"] = sums.empty / samples;
  metrics["training/filter_groups/uniform_reward_ratio"] =
      sums.uniform_groups / std::max<int64_t>(std::ssize(groups), 1);
  metrics["rollout/entropy"] = sums.entropy.mean();
  for (const auto& [name, summary] : sums.extras)
    metrics["reward_extra/" + name + "/mean"] = summary.mean();
  add_unbalanced_seqlen(metrics, sums.sequences, topology.learners.size(comm::Axis::kDp));

  add_timings(metrics, timings, std::max(sums.response_tokens, 1.0),
              std::max(sums.all_tokens, 1.0));
  const double step_seconds = timings.at("step"), gen_seconds = timings.at("gen");
  metrics["perf/total_num_tokens"] = sums.all_tokens;
  metrics["perf/time_per_step"] = step_seconds;
  metrics["perf/throughput"] = sums.all_tokens / step_seconds / topology.ranks;
  metrics["perf/rollout_tokens_per_s"] = sums.response_tokens / std::max(gen_seconds, 1e-9);
  metrics["perf/peak_memory_gib"] = peak_memory_gib();
  metrics["training/global_batch_size_samples"] = samples;
  metrics["training/global_batch_size_prompts"] = groups.size();
  metrics["actor/kl_coef"] = config.actor().kl_loss_coef();
  return {sums.rewards.mean(), sums.responses.mean(), sums.all_tokens / step_seconds};
}

void add_progress_metrics(Metrics& metrics, int64_t sft_steps, int64_t step,
                          int64_t train_batch_size, uint64_t train_items) {
  metrics["training/global_step"] = sft_steps + step + 1;
  const uint64_t prompts = step * train_batch_size;
  metrics["training/epoch"] = train_items == 0 ? 0 : prompts / train_items;
}

void add_mfu_metrics(Metrics& metrics, std::span<const rollout::Group> groups,
                     const models::ModelConfig& model, int64_t epochs, double update_seconds,
                     double peak_flops, int learners) {
  double tokens = 0, squares = 0;
  for (const rollout::Group& group : groups) {
    for (const rollout::Trajectory& t : group.samples) {
      const double length = sequence_tokens(t);
      tokens += length;
      squares += length * length;
    }
  }
  const double hidden = model.hidden_size, layers = model.num_hidden_layers, q = model.q_size();
  const double mlp = 3 * hidden * model.intermediate_size;
  const double attention = hidden * (model.qkv_size() + model.q_size());
  const double weights = (mlp + attention) * layers + 2.0 * model.vocab_size * hidden;
  const double flops = 6 * weights * tokens + 6 * squares * q * layers;
  metrics["perf/peak_gflops"] = peak_flops * 1e-9;
  metrics["perf/mfu/actor"] =
      flops * epochs / std::max(update_seconds, 1e-9) / peak_flops / learners;
}

bool add_advantage_metrics(Metrics& metrics, std::span<const learners::GroupRewards> groups,
                           std::span<const std::vector<float>> advantages) {
  Summary summary, greedy;
  for (size_t g = 0; g < groups.size(); ++g) {
    if (groups[g].greedy_reward) greedy.add(*groups[g].greedy_reward);
    for (size_t i = 0; i < advantages[g].size(); ++i)
      summary.add(advantages[g][i], groups[g].loss_tokens[i]);
  }
  summary.write(metrics, "critic/advantages");
  // Without a critic an outcome's return is its advantage, as in verl.
  summary.write(metrics, "critic/returns");
  if (greedy.count() > 0) greedy.write(metrics, "critic/greedy_reward");
  return summary.min() != 0 || summary.max() != 0;
}

void write_logprob_difference(Metrics& metrics, const learners::LogprobDifference& difference,
                              double tokens) {
  const double count = std::max(tokens, 1.0), mean = difference.probs_diff_sum / count;
  metrics["training/rollout_probs_diff_max"] = difference.probs_diff_max;
  metrics["training/rollout_probs_diff_mean"] = mean;
  const double squares = difference.probs_diff_square_sum - count * mean * mean;
  // Not std::max(0, ...) alone, which would turn a NaN into 0.
  metrics["training/rollout_probs_diff_std"] =
      std::sqrt((squares < 0 ? 0.0 : squares) / std::max(count - 1, 1.0));
  metrics["rollout/logprob_diff_max"] = difference.logprob_diff_max;
}

void UpdateMetrics::add(const learners::UpdateResult& r, bool first_epoch) {
  if (updates_ == 0) first_ = r.sums;
  ++updates_;
  for (const learners::TermSum& term : r.sums.terms)
    terms_[fmt::format("actor/{}", term.term.name)] += r.sums.value(term);
  not_finite_ += r.sums.not_finite.count;
  rows_ += r.rows;
  flops_ += r.model_flops;
  reference_seconds_ += r.reference_seconds;
  gradient_seconds_ += r.gradient_seconds;
  reduce_seconds_ += r.reduce_seconds;
  optimizer_seconds_ += r.optimizer_seconds;
  pack_seconds_ += r.pack_seconds;
  if (first_epoch) {
    rank_tokens_.resize(r.rank_tokens.size(), 0.0);
    for (size_t rank = 0; rank < r.rank_tokens.size(); ++rank)
      rank_tokens_[rank] += r.rank_tokens[rank];
  }
  if (r.skipped) spdlog::warn("{}", learners::skipped_update_text(r));
  totals_.loss += r.sums.loss;
  totals_.grad_norm += r.grad_norm;
  totals_.entropy += r.sums.entropy;
  totals_.lr = r.lr;
  totals_.skipped_updates += r.skipped ? 1 : 0;
}

void UpdateMetrics::write(Metrics& metrics, std::map<std::string, double>& timings) const {
  StepStats means;
  fill(means);
  metrics["actor/loss"] = means.loss;
  metrics["actor/entropy"] = means.entropy;
  metrics["actor/grad_norm"] = means.grad_norm;
  metrics["actor/lr"] = means.lr;
  metrics["actor/skipped_updates"] = means.skipped_updates;
  const double n = std::max<int64_t>(updates_, 1);
  for (const auto& [name, sum] : terms_) metrics[name] = sum / n;
  metrics["actor/not_finite_tokens"] = not_finite_;
  write_logprob_difference(metrics, first_, first_.tokens);
  metrics["rollout/logprob_mismatches"] = first_.mismatches.count;
  metrics["perf/learner_rows"] = static_cast<double>(rows_);
  metrics["perf/learner_flops"] = flops_;
  if (gradient_seconds_ > 0)
    metrics["perf/learner_gflops_per_s"] = flops_ / gradient_seconds_ * 1e-9;
  if (!rank_tokens_.empty()) {
    const auto [least, most] = std::minmax_element(rank_tokens_.begin(), rank_tokens_.end());
    metrics["global_seqlen/balanced_min"] = *least;
    metrics["global_seqlen/balanced_max"] = *most;
  }
  if (reference_seconds_ > 0) {
    timings["ref"] = reference_seconds_;
    timings["update_actor"] -= reference_seconds_;
  }
  timings["update_actor/gradient"] = gradient_seconds_;
  timings["update_actor/reduce"] = reduce_seconds_;
  timings["update_actor/optimizer"] = optimizer_seconds_;
  timings["update_actor/pack"] = pack_seconds_;
}

void UpdateMetrics::fill(StepStats& stats) const {
  const double n = std::max<int64_t>(updates_, 1);
  stats.loss = totals_.loss / n;
  stats.grad_norm = totals_.grad_norm / n;
  stats.entropy = totals_.entropy / n;
  stats.lr = totals_.lr;
  stats.skipped_updates = totals_.skipped_updates;
}

}  // namespace orrery::experiments
