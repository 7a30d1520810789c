// Metrics of an RL step, under verl's names. Every function is of plain values; sums run in prompt and sample
// order.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "comm/topology.h"
#include "experiments/metrics.h"
#include "learners/learner.h"
#include "proto/config.pb.h"
#include "rollout/trajectory.h"

namespace orrery {

/// Rewards, lengths, entropy of the rollout, reward parts, throughput and timings of one step.
void add_step_metrics(Metrics& metrics, std::span<const Group> groups,
                      const std::map<std::string, double>& timings, const proto::Config& config,
                      const Topology& topology);

void add_advantage_metrics(Metrics& metrics, std::span<const std::vector<float>> advantages);

/// training/rollout_probs_diff_* and rollout/logprob_diff_max, over `tokens` tokens.
void write_logprob_difference(Metrics& metrics, const LogprobDifference& difference, double tokens);

/// The optimizer steps of one RL step: token means over all of them, the last learning rate, the largest
/// mismatch of the first one (later ones are off policy).
class UpdateMetrics {
 public:
  void add(const UpdateResult& result);
  void write(Metrics& metrics, std::map<std::string, double>& timings, double kl_loss_coef) const;

 private:
  LossSums sums_, first_;
  double loss_ = 0, pg_loss_ = 0, grad_norm_ = 0, lr_ = 0, flops_ = 0, seconds_ = 0;
  double reference_seconds_ = 0, gradient_seconds_ = 0, reduce_seconds_ = 0, optimizer_seconds_ = 0,
         pack_seconds_ = 0;
  int64_t updates_ = 0, skipped_ = 0, rows_ = 0;
};

/// mean@N, best@N (mean over prompts of the best sample) and maj-free accuracy by data source; totals.
void summarize_validation(std::span<const Group> groups, int n, Metrics& metrics, double& reward,
                          double& accuracy);

}  // namespace orrery
