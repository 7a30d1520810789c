// Metrics under verl's names have verl's values (docs/metrics.md).
#include "experiments/rl_metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace orrery::experiments {
namespace {

/// A sample whose loss mask is given as text: '1' the policy's tokens, '0' an
/// observation's.
rollout::Trajectory make_sample(int64_t prompt_tokens, const std::string& mask, float reward) {
  rollout::Trajectory t;
  t.prompt_tokens.assign(static_cast<size_t>(prompt_tokens), 1);
  for (const char c : mask) {
    t.tokens.push_back(2);
    t.loss_mask.push_back(c == '1' ? 1 : 0);
    t.logprobs.push_back(-1);
    t.entropies.push_back(c == '1' ? 0.5f : 0.0f);
  }
  t.reward = reward;
  return t;
}

proto::Config make_config() {
  proto::Config config;
  config.mutable_data()->set_max_prompt_length(6);
  config.mutable_data()->set_max_response_length(8);
  return config;
}

/// Two prompts, of 3 and 6 tokens.
std::vector<rollout::Group> make_groups() {
  std::vector<rollout::Group> groups;
  groups.push_back(
      {1,
       10,
       {make_sample(3, "11111111", 1), make_sample(3, "11", 0), make_sample(3, "11001", 0)}});
  groups.push_back(
      {1, 11, {make_sample(6, "1", 0.5f), make_sample(6, "", 7), make_sample(6, "1110", 0.5f)}});
  groups[0].samples[1].finish_reason =
      rollout::FinishReason::kLength;  // the context's end, not max_response_length
  groups[0].samples[0].reward_extra["correct"] = 1;
  return groups;
}

Metrics step_metrics(const std::vector<rollout::Group>& groups, int learners) {
  comm::Topology topology;
  topology.ranks = 4;
  topology.learners = comm::Mesh({{comm::Axis::kDp, learners}});
  Metrics metrics;
  add_step_metrics(
      metrics, groups,
      {{"step", 2.0}, {"gen", 0.5}, {"update_actor", 1.0}, {"adv", 0.1}, {"gen/reward", 0.2}},
      make_config(), topology);
  return metrics;
}

TEST(StepMetrics, LengthsRatiosAndTurnsAreVerls) {
  const Metrics metrics = step_metrics(make_groups(), 1);
  EXPECT_DOUBLE_EQ(metrics.at("response_length/mean"), 20.0 / 6);
  EXPECT_EQ(metrics.at("response_length/min"), 0);
  EXPECT_DOUBLE_EQ(metrics.at("response_length/clip_ratio"), 1.0 / 6)
      << "equal to the maximum, for whatever reason";
  EXPECT_DOUBLE_EQ(metrics.at("prompt_length/clip_ratio"), 0.5);
  EXPECT_DOUBLE_EQ(metrics.at("response/aborted_ratio"), 1.0 / 6) << "an empty response";
  EXPECT_EQ(metrics.at("critic/rewards/max"), 1) << "not the empty response's 7";
  EXPECT_DOUBLE_EQ(metrics.at("critic/score/mean"), 2.0 / 5);
  EXPECT_EQ(metrics.at("num_turns/max"), 4) << "prompt, answer, observation, answer";
  EXPECT_EQ(metrics.at("num_turns/min"), 1);
  EXPECT_DOUBLE_EQ(metrics.at("num_turns/mean"), (2 + 2 + 4 + 2 + 1 + 3) / 6.0);
  EXPECT_DOUBLE_EQ(metrics.at("rollout/entropy"), 0.5) << "of loss tokens";
  EXPECT_EQ(metrics.at("reward_extra/correct/mean"), 1);
}

TEST(StepMetrics, TimesAndThroughputsAreByVerlsTokens) {
  const Metrics metrics = step_metrics(make_groups(), 1);
  EXPECT_EQ(metrics.at("perf/total_num_tokens"), 27 + 20);
  EXPECT_DOUBLE_EQ(metrics.at("perf/throughput"), 47 / 2.0 / 4);
  EXPECT_DOUBLE_EQ(metrics.at("timing_per_token_ms/gen"), 500.0 / 20);
  EXPECT_DOUBLE_EQ(metrics.at("timing_per_token_ms/update_actor"), 1000.0 / 47);
  EXPECT_DOUBLE_EQ(metrics.at("timing_per_token_ms/adv"), 100.0 / 47);
  EXPECT_FALSE(metrics.contains("timing_per_token_ms/step"));
  EXPECT_FALSE(metrics.contains("timing_per_token_ms/gen/reward"));
}

TEST(StepMetrics, SequenceLengthsAreSumsOfTheLearnersShares) {
  const auto groups = make_groups();  // sequences of 11, 5, 8; 7, 6, 10
  Metrics metrics = step_metrics(groups, 1);
  EXPECT_EQ(metrics.at("global_seqlen/min"), 47);
  EXPECT_EQ(metrics.at("global_seqlen/mean"), 47);
  metrics = step_metrics(groups, 2);
  EXPECT_EQ(metrics.at("global_seqlen/min"), 23);
  EXPECT_EQ(metrics.at("global_seqlen/max"), 24);
  EXPECT_EQ(metrics.at("global_seqlen/minmax_diff"), 1);
  EXPECT_EQ(metrics.at("global_seqlen/mean"), 23.5);
  metrics = step_metrics(groups, 4);  // which does not divide six: 1, 2, 1 and 2 of them
  EXPECT_EQ(metrics.at("global_seqlen/min"), 7);
  EXPECT_EQ(metrics.at("global_seqlen/max"), 16);
  EXPECT_EQ(metrics.at("global_seqlen/mean"), 47.0 / 4);
}

TEST(StepMetrics, ProgressCountsStepsFromOneAndEpochsFromZero) {
  const auto at = [](int64_t step, uint64_t items) {
    Metrics metrics;
    add_progress_metrics(metrics, 600, step, 8, items);
    return std::pair(metrics.at("training/global_step"), metrics.at("training/epoch"));
  };
  EXPECT_EQ(at(0, 16), std::pair(601.0, 0.0));
  EXPECT_EQ(at(1, 16), std::pair(602.0, 0.0));
  EXPECT_EQ(at(2, 16), std::pair(603.0, 1.0));
  EXPECT_EQ(at(1, 3), std::pair(602.0, 2.0)) << "8 prompts are two passes over 3 items and some";
  EXPECT_EQ(at(100, 0), std::pair(701.0, 0.0)) << "endless";
}

TEST(StepMetrics, MfuIsVerlsFormulaOverThePeakOfAllLearners) {
  models::ModelConfig model;
  model.hidden_size = 8;
  model.intermediate_size = 16;
  model.num_hidden_layers = 2;
  model.num_attention_heads = 4;
  model.num_key_value_heads = 2;
  model.head_dim = 4;
  model.vocab_size = 10;
  Metrics metrics;
  add_mfu_metrics(metrics, make_groups(), model, 3, 0.5, 1e6, 2);
  const double dense = (3 * 8 * 16 + 8 * (16 + 8 + 8 + 16)) * 2 + 2 * 10 * 8;
  const double squares = 121 + 25 + 64 + 49 + 36 + 100;
  EXPECT_DOUBLE_EQ(metrics.at("perf/mfu/actor"),
                   (6 * dense * 47 + 6 * squares * 4 * 4 * 2) * 3 / 0.5 / 1e6 / 2);
  EXPECT_DOUBLE_EQ(metrics.at("perf/peak_gflops"), 1e-3);
}

TEST(AdvantageMetrics, CountLossTokens) {
  const auto rewards = group_rewards(make_groups());
  EXPECT_EQ(rewards[0].prompt_index, 10u);
  EXPECT_EQ(rewards[0].loss_tokens, (std::vector<int64_t>{8, 2, 3}))
      << "observations are not counted";
  EXPECT_EQ(rewards[1].rewards, (std::vector<float>{0.5f, 7, 0.5f}));
  Metrics metrics;
  add_advantage_metrics(metrics, rewards,
                        std::vector<std::vector<float>>{{1, -1, 0.5f}, {2, 9, -3}});
  EXPECT_DOUBLE_EQ(metrics.at("critic/advantages/mean"), (8 - 2 + 1.5 + 2 - 9) / 17);
  EXPECT_EQ(metrics.at("critic/advantages/max"), 2) << "not the 9 that no token has";
  EXPECT_EQ(metrics.at("critic/returns/min"), -3);
  EXPECT_FALSE(metrics.contains("critic/greedy_reward/mean"));
  EXPECT_EQ(rewards[0].parts[0], (std::map<std::string, double>{{"correct", 1}}));
  EXPECT_TRUE(rewards[0].parts[1].empty());
  const auto with_greedy = group_rewards(make_groups(), std::vector<float>{0.5f, 2});
  add_advantage_metrics(metrics, with_greedy,
                        std::vector<std::vector<float>>{{0, 0, 0}, {0, 0, 0}});
  EXPECT_EQ(metrics.at("critic/greedy_reward/mean"), 1.25);
  EXPECT_EQ(metrics.at("critic/greedy_reward/max"), 2);
}

double& sum(learners::UpdateResult& result, std::string_view term) {
  for (learners::TermSum& one : result.sums.terms) {
    if (one.term.name == term) return one.sum;
  }
  throw Error(fmt::format("no term {}", term));
}

TEST(UpdateMetrics, AreMeansOverTheOptimizerSteps) {
  UpdateMetrics updates;
  proto::Config config;
  config.mutable_actor()->set_kl_loss_coef(0.1);
  learners::UpdateResult first, second;
  first.sums = learners::LossSums(learners::policy_objective(config).loss->terms());
  first.sums.tokens = 10;
  sum(first, "ppo_kl") = 1;
  sum(first, "pg_clipfrac") = 5;
  sum(first, "pg_clipfrac_lower") = 1;
  first.sums.entropy = 2;
  sum(first, "kl_loss") = 0.25;
  sum(first, "pg_loss") = 1;
  first.sums.loss = 3;
  first.reference_seconds = 0.5;
  first.rank_tokens = {10, 30};
  second = first;
  second.sums.tokens = 1000;
  sum(second, "ppo_kl") = 300;
  sum(second, "pg_clipfrac") = 0;
  second.sums.entropy = 4;
  sum(second, "kl_loss") = 0.75;
  sum(second, "pg_loss") = 2;
  second.rank_tokens = {5, 1};
  second.skipped = true;
  second.sums.not_finite.add({1, 2, 3, 4, 0, 0});
  updates.add(first, true);
  updates.add(second, true);
  updates.add(second, false);
  Metrics metrics;
  std::map<std::string, double> timings;
  updates.write(metrics, timings);
  EXPECT_DOUBLE_EQ(metrics["actor/ppo_kl"], (0.1 + 0.3 + 0.3) / 3) << "not by tokens";
  EXPECT_DOUBLE_EQ(metrics["actor/pg_clipfrac"], 0.5 / 3);
  EXPECT_DOUBLE_EQ(metrics["actor/pg_clipfrac_lower"], (0.1 + 0.001 + 0.001) / 3);
  EXPECT_DOUBLE_EQ(metrics["actor/entropy"], 10.0 / 3) << "aggregated as the loss is";
  EXPECT_DOUBLE_EQ(metrics["actor/kl_loss"], 1.75 / 3);
  EXPECT_DOUBLE_EQ(metrics["actor/pg_loss"], 5.0 / 3);
  EXPECT_EQ(metrics["actor/loss"], 3);
  EXPECT_EQ(metrics["actor/skipped_updates"], 2);
  EXPECT_EQ(metrics["actor/not_finite_tokens"], 2);
  EXPECT_EQ(metrics["global_seqlen/balanced_min"], 15) << "every sample once";
  EXPECT_EQ(metrics["global_seqlen/balanced_max"], 31);
  EXPECT_EQ(timings["ref"], 1.5);
  EXPECT_EQ(timings["update_actor"], -1.5) << "what the surrounding timer will add includes it";
}

TEST(LogprobDifferenceMetrics, StdHasBesselsCorrection) {
  learners::LogprobDifference difference;
  const double values[] = {0.1, 0.4, 0.2};
  for (const double d : values) {
    difference.probs_diff_sum += d;
    difference.probs_diff_square_sum += d * d;
  }
  Metrics metrics;
  write_logprob_difference(metrics, difference, 3);
  const double mean = 0.7 / 3;
  double squares = 0;
  for (const double d : values) squares += (d - mean) * (d - mean);
  EXPECT_NEAR(metrics["training/rollout_probs_diff_std"], std::sqrt(squares / 2), 1e-12);
  EXPECT_NEAR(metrics["training/rollout_probs_diff_mean"], mean, 1e-12);
  difference.probs_diff_sum = std::nan("");
  write_logprob_difference(metrics, difference, 3);
  EXPECT_TRUE(std::isnan(metrics["training/rollout_probs_diff_std"]));
  write_logprob_difference(metrics, {}, 0);
  EXPECT_EQ(metrics["training/rollout_probs_diff_std"], 0);
}

TEST(Summary, ANanIsSeenWhereverItStands) {
  for (int at = 0; at < 3; ++at) {
    Summary summary;
    for (int i = 0; i < 3; ++i) summary.add(i == at ? std::nan("") : i);
    EXPECT_TRUE(std::isnan(summary.min()) && std::isnan(summary.max()) &&
                std::isnan(summary.mean()))
        << at;
  }
  Summary weighted;
  weighted.add(100, 0);
  weighted.add(1, 3);
  weighted.add(5, 1);
  EXPECT_EQ(weighted.max(), 5);
  EXPECT_EQ(weighted.mean(), 2);
  EXPECT_EQ(weighted.count(), 4);
}

}  // namespace
}  // namespace orrery::experiments
