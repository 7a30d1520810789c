// Metrics of an RL step, under verl's names where they mean what verl's mean
// (docs/metrics.md has every definition). Every function is of plain values; sums run
// in prompt and sample order.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "comm/topology.h"
#include "experiments/metrics.h"
#include "experiments/step_stats.h"
#include "learners/advantage.h"
#include "learners/learner.h"
#include "models/config.h"
#include "proto/config.pb.h"
#include "rollout/trajectory.h"

namespace orrery::experiments {

/// The rewards and loss tokens of a step's groups, as the advantages need them.
/// `greedy_rewards`: of the greedy response to each group's prompt, or none.
std::vector<learners::GroupRewards> group_rewards(std::span<const rollout::Group> groups,
                                                  std::span<const float> greedy_rewards = {});

/// Turns of the conversation that a sample is: the prompt, and each run of the policy's
/// tokens or of an observation's (verl's count: 2 for a question and its answer).
int count_turns(const rollout::Trajectory& sample);

/// Of a step's samples, as its line on the console shows them.
struct SampleMeans {
  double reward = 0;
  double response_length = 0;  ///< tokens
  double tokens_per_s = 0;     ///< prompt and response tokens over the step's time, all ranks
};

/// Rewards, lengths, turns, entropy of the rollout, reward parts, throughput and
/// timings of one step.
SampleMeans add_step_metrics(Metrics& metrics, std::span<const rollout::Group> groups,
                             const std::map<std::string, double>& timings,
                             const proto::Config& config, const comm::Topology& topology);

/// training/global_step (the run's step number: of SFT too, this one included) and
/// training/epoch: passes over the `train_items` (0: endless) that were complete before
/// the first prompt of RL step `step`, from 0.
void add_progress_metrics(Metrics& metrics, int64_t sft_steps, int64_t step,
                          int64_t train_batch_size, uint64_t train_items);

/// perf/mfu/actor and perf/peak_gflops: what verl's formula says that the step's
/// sequences cost, `epochs` times, over what the learners can do in update_seconds.
/// peak_flops: floating-point operations a second of one of them.
void add_mfu_metrics(Metrics& metrics, std::span<const rollout::Group> groups,
                     const models::ModelConfig& model, int64_t epochs, double update_seconds,
                     double peak_flops, int learners);

/// critic/advantages/* and critic/returns/*, over loss tokens, and
/// critic/greedy_reward/*, over prompts. Whether an advantage is not 0, so that there
/// is something to learn.
bool add_advantage_metrics(Metrics& metrics, std::span<const learners::GroupRewards> groups,
                           std::span<const std::vector<float>> advantages);

/// training/rollout_probs_diff_* and rollout/logprob_diff_max, over `tokens` tokens.
void write_logprob_difference(Metrics& metrics, const learners::LogprobDifference& difference,
                              double tokens);

/// The optimizer steps of one RL step: the mean over them of what each of them was over
/// its mini-batch, the last learning rate, the log-prob differences of the first one
/// (later ones are off policy).
class UpdateMetrics {
 public:
  /// `first_epoch`: each sample is in one such update.
  void add(const learners::UpdateResult& result, bool first_epoch);
  /// timings["update_actor"] loses the reference model's time, which stands alone as
  /// timings["ref"].
  void write(Metrics& metrics, std::map<std::string, double>& timings) const;
  /// What the run is steered by: the same means, and updates that were skipped.
  void fill(StepStats& stats) const;

 private:
  learners::LossSums first_;
  StepStats totals_;  // sums over the updates; the last learning rate
  Metrics terms_;     // of the loss's own terms, likewise
  double flops_ = 0, not_finite_ = 0;
  double reference_seconds_ = 0, gradient_seconds_ = 0, reduce_seconds_ = 0, optimizer_seconds_ = 0,
         pack_seconds_ = 0;
  int64_t updates_ = 0, rows_ = 0;
  std::vector<double> rank_tokens_;
};

}  // namespace orrery::experiments
