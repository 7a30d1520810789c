#include "experiments/rl_metrics.h"

#include <algorithm>
#include <cmath>

#include "core/log.h"

namespace orrery {

void add_step_metrics(Metrics& metrics, std::span<const Group> groups,
                      const std::map<std::string, double>& timings, const proto::Config& config,
                      const Topology& topology) {
  Summary rewards, responses, prompts, sequences, entropy, turns;
  std::map<std::string, Summary> extras;
  double clipped = 0, aborted = 0, uniform_groups = 0, total_tokens = 0, response_tokens = 0;
  for (const Group& group : groups) {
    bool uniform = true;
    for (const Trajectory& t : group.samples) {
      rewards.add(t.reward);
      responses.add(static_cast<double>(t.tokens.size()));
      prompts.add(static_cast<double>(t.prompt_tokens.size()));
      sequences.add(static_cast<double>(t.prompt_tokens.size() + t.tokens.size()));
      total_tokens += static_cast<double>(t.prompt_tokens.size() + t.tokens.size());
      response_tokens += static_cast<double>(t.tokens.size());
      clipped += t.finish_reason == FinishReason::kLength ? 1 : 0;
      aborted += t.finish_reason == FinishReason::kAbort ? 1 : 0;
      uniform = uniform && t.reward == group.samples.front().reward;
      for (size_t i = 0; i < t.tokens.size(); ++i) {
        if (t.loss_mask[i] != 0) entropy.add(t.entropies[i]);
      }
      int turn_count = 1;
      for (size_t i = 1; i < t.tokens.size(); ++i)
        turn_count += t.loss_mask[i] != 0 && t.loss_mask[i - 1] == 0 ? 1 : 0;
      turns.add(turn_count);
      for (const auto& [name, value] : t.reward_extra) extras[name].add(value);
    }
    uniform_groups += uniform ? 1 : 0;
  }
  rewards.write(metrics, "critic/score");
  rewards.write(metrics, "critic/rewards");
  responses.write(metrics, "response_length");
  prompts.write(metrics, "prompt_length");
  turns.write(metrics, "num_turns");
  const auto samples = static_cast<double>(std::max<int64_t>(responses.count(), 1));
  metrics["response_length/clip_ratio"] = clipped / samples;
  metrics["response/aborted_ratio"] = aborted / samples;
  metrics["training/filter_groups/uniform_reward_ratio"] =
      uniform_groups / static_cast<double>(std::max<size_t>(groups.size(), 1));
  metrics["rollout/entropy"] = entropy.mean();
  for (const auto& [name, summary] : extras) metrics["reward_extra/" + name + "/mean"] = summary.mean();
  metrics["global_seqlen/min"] = sequences.min();
  metrics["global_seqlen/max"] = sequences.max();
  metrics["global_seqlen/minmax_diff"] = sequences.max() - sequences.min();
  metrics["global_seqlen/mean"] = sequences.mean();

  for (const auto& [name, seconds] : timings) metrics["timing_s/" + name] = seconds;
  const double step_seconds = timings.at("step"), gen_seconds = timings.at("gen");
  metrics["perf/total_num_tokens"] = total_tokens;
  metrics["perf/time_per_step"] = step_seconds;
  metrics["perf/throughput"] = total_tokens / step_seconds / topology.ranks;
  metrics["perf/rollout_tokens_per_s"] = response_tokens / std::max(gen_seconds, 1e-9);
  metrics["perf/cpu_memory_used_gb"] = peak_memory_gib();
  metrics["training/global_batch_size_samples"] = samples;
  metrics["training/global_batch_size_prompts"] = static_cast<double>(groups.size());
  metrics["actor/kl_coef"] = config.actor().kl_loss_coef();
}

void add_advantage_metrics(Metrics& metrics, std::span<const std::vector<float>> advantages) {
  Summary summary;
  for (const auto& group : advantages) {
    for (const float a : group) summary.add(a);
  }
  summary.write(metrics, "critic/advantages");
  summary.write(metrics,
                "critic/returns");  // without a critic an outcome's return is its advantage, as in verl
}

void write_logprob_difference(Metrics& metrics, const LogprobDifference& difference, double tokens) {
  const double count = std::max(tokens, 1.0), mean = difference.probs_diff_sum / count;
  metrics["training/rollout_probs_diff_max"] = difference.probs_diff_max;
  metrics["training/rollout_probs_diff_mean"] = mean;
  metrics["training/rollout_probs_diff_std"] =
      std::sqrt(std::max(0.0, difference.probs_diff_square_sum / count - mean * mean));
  metrics["rollout/logprob_diff_max"] = difference.logprob_diff_max;
}

void UpdateMetrics::add(const UpdateResult& r) {
  if (updates_ == 0) first_ = r.sums;
  ++updates_;
  skipped_ += r.skipped ? 1 : 0;
  sums_.add(r.sums);
  loss_ += r.sums.loss;
  pg_loss_ += r.sums.pg_loss;
  grad_norm_ += r.grad_norm;
  lr_ = r.lr;
  rows_ += r.rows;
  flops_ += r.model_flops;
  reference_seconds_ += r.reference_seconds;
  gradient_seconds_ += r.gradient_seconds;
  reduce_seconds_ += r.reduce_seconds;
  optimizer_seconds_ += r.optimizer_seconds;
  pack_seconds_ += r.pack_seconds;
  if (r.skipped)
    spdlog::warn("the gradient norm is {}: this update was skipped, weights are unchanged", r.grad_norm);
}

void UpdateMetrics::write(Metrics& metrics, std::map<std::string, double>& timings,
                          double kl_loss_coef) const {
  const double tokens = std::max(sums_.tokens, 1.0), n = static_cast<double>(std::max<int64_t>(updates_, 1));
  metrics["actor/loss"] = loss_ / n;
  metrics["actor/pg_loss"] = pg_loss_ / n;
  metrics["actor/ppo_kl"] = sums_.ppo_kl / tokens;
  metrics["actor/pg_clipfrac"] = sums_.clipped / tokens;
  metrics["actor/pg_clipfrac_lower"] = sums_.clipped_lower / tokens;
  metrics["actor/entropy"] = sums_.entropy / tokens;
  if (kl_loss_coef > 0) metrics["actor/kl_loss"] = sums_.kl / tokens;
  metrics["actor/grad_norm"] = grad_norm_ / n;
  metrics["actor/lr"] = lr_;
  metrics["actor/skipped_updates"] = static_cast<double>(skipped_);
  write_logprob_difference(metrics, first_, first_.tokens);
  metrics["rollout/logprob_mismatches"] = first_.mismatches;
  metrics["perf/learner_rows"] = static_cast<double>(rows_);
  metrics["perf/learner_flops"] = flops_;
  if (gradient_seconds_ > 0) metrics["perf/learner_gflops_per_s"] = flops_ / gradient_seconds_ * 1e-9;
  if (reference_seconds_ > 0) timings["ref"] = reference_seconds_;
  timings["update_actor/gradient"] = gradient_seconds_;
  timings["update_actor/reduce"] = reduce_seconds_;
  timings["update_actor/optimizer"] = optimizer_seconds_;
  timings["update_actor/pack"] = pack_seconds_;
}

void summarize_validation(std::span<const Group> groups, int n, Metrics& metrics, double& reward,
                          double& accuracy) {
  struct Source {
    Summary reward, best, correct, pass;
  };
  std::map<std::string, Source> sources;
  Summary rewards, correct;
  for (const Group& group : groups) {
    Source& source = sources[group.samples.front().data_source];
    double best = -INFINITY, pass = 0;
    bool has_correct = false;
    for (const Trajectory& t : group.samples) {
      rewards.add(t.reward);
      source.reward.add(t.reward);
      best = std::max<double>(best, t.reward);
      if (const auto it = t.reward_extra.find("correct"); it != t.reward_extra.end()) {
        has_correct = true;
        correct.add(it->second);
        source.correct.add(it->second);
        pass = std::max(pass, it->second);
      }
    }
    source.best.add(best);
    if (has_correct) source.pass.add(pass);
  }
  for (const auto& [name, s] : sources) {
    metrics[fmt::format("val-core/{}/reward/mean@{}", name, n)] = s.reward.mean();
    if (n > 1) metrics[fmt::format("val-core/{}/reward/best@{}", name, n)] = s.best.mean();
    if (s.correct.count() == 0) continue;
    metrics[fmt::format("val-core/{}/acc/mean@{}", name, n)] = s.correct.mean();
    if (n > 1) metrics[fmt::format("val-core/{}/acc/best@{}", name, n)] = s.pass.mean();
  }
  reward = rewards.mean();
  accuracy = correct.count() > 0 ? correct.mean() : -1;
}

}  // namespace orrery
