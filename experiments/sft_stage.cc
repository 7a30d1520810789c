#include "experiments/sft_stage.h"

#include <algorithm>

#include "core/log.h"
#include "core/timer.h"

namespace orrery {
SftStage::SftStage(Job& job, Learner& learner)
    : job_(job),
      learner_(learner),
      data_(job.config, *job.env, *job.source, job.tokenizer, check_setup(job)) {}

Metrics SftStage::step(int64_t step) {
  const Timer timer;
  job_.phase(fmt::format("sft step {}", step + 1));
  const proto::SftSection& sft = job_.config.sft();
  const auto size = static_cast<size_t>(sft.train_batch_size());
  std::vector<ChatExample> examples(size);
  std::vector<uint8_t> mask;
  int64_t total_tokens = 0;
  for (size_t i = 0; i < size; ++i) {
    examples[i] = data_.example(static_cast<uint64_t>(step) * size + i);
    total_tokens += static_cast<int64_t>(examples[i].response.size());
    if (mask.size() < examples[i].response.size()) mask.resize(examples[i].response.size(), 1);
  }
  std::vector<Tree> trees;
  trees.reserve(size);
  for (size_t i = 0; i < size; ++i) {
    Leaf leaf;
    leaf.tokens = examples[i].response;
    leaf.loss_mask = std::span(mask).first(examples[i].response.size());
    leaf.weight = aggregation_weight(LossAggMode::kTokenMean, 1, total_tokens, static_cast<int64_t>(size), 1);
    leaf.prompt_index = i;
    trees.push_back({examples[i].prompt, {}});
    trees.back().leaves.push_back(std::move(leaf));
  }
  const LrSchedule schedule = lr_schedule(sft.optim(), sft.total_training_steps());
  AdamWParams params = adamw_params(sft.optim());
  params.lr = static_cast<float>(learning_rate(schedule, step));
  Objective objective;
  objective.sft = true;
  const UpdateResult update = learner_.update(trees, objective, params, sft.optim().clip_grad());
  if (update.skipped) spdlog::warn("the gradient norm is {}: this update was skipped", update.grad_norm);

  const double seconds = timer.seconds();
  Metrics metrics;
  metrics["train/loss"] = update.sums.loss;
  metrics["train/entropy"] = update.sums.entropy / std::max(update.sums.tokens, 1.0);
  metrics["train/lr"] = update.lr;
  metrics["train/grad_norm"] = update.grad_norm;
  metrics["perf/total_num_tokens"] = static_cast<double>(update.rows);
  metrics["perf/throughput"] = static_cast<double>(update.rows) / seconds / job_.learners->size();
  metrics["perf/learner_gflops_per_s"] = update.model_flops / update.gradient_seconds * 1e-9;
  metrics["timing_s/step"] = seconds;
  return metrics;
}

}  // namespace orrery
