#include "experiments/sft_stage.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/log.h"
#include "core/span.h"
#include "core/timer.h"

namespace orrery::experiments {
namespace {

/// Spans of ones for examples of which all is learned.
class FullMask {
 public:
  explicit FullMask(std::span<const SftExample> examples) {
    size_t longest = 0;
    for (const SftExample& example : examples) longest = std::max(longest, example.response.size());
    ones_.resize(longest, 1);
  }
  std::span<const uint8_t> of(const text::ChatExample& example) const {
    return example.loss_mask.empty() ? std::span(ones_).first(example.response.size())
                                     : std::span<const uint8_t>(example.loss_mask);
  }

 private:
  std::vector<uint8_t> ones_;
};

/// Weights as shares of the largest one, so that no sum of them overflows, and what
/// they sum up to over tokens.
struct Weights {
  double largest = 0, total = 0;

  explicit Weights(std::span<const SftExample> examples) {
    for (const SftExample& example : examples) largest = std::max(largest, example.weight);
    for (const SftExample& example : examples) total += of(example) * example.loss_tokens();
  }
  double of(const SftExample& example) const { return largest > 0 ? example.weight / largest : 0; }
  /// Of each token in the loss: 1 over the number of tokens when all weights are equal.
  float in_loss(const SftExample& example) const {
    if (total == 0) return 0;
    return of(example) / total;
  }
};

learners::Tree tree_of(const SftExample& example, const FullMask& mask, float weight,
                       uint64_t index) {
  learners::Leaf leaf;
  leaf.tokens = example.response;
  leaf.loss_mask = mask.of(example);
  leaf.weight = weight;
  leaf.prompt_index = index;
  learners::Tree tree{example.prompt, {}};
  tree.leaves.push_back(std::move(leaf));
  return tree;
}

}  // namespace

SftStage::SftStage(Job& job, learners::Learner& learner)
    : job_(job),
      learner_(learner),
      data_(job.config, *job.env, *job.source, job.tokenizer, check_setup(job)) {
  const int64_t positions = job.model().config().max_position_embeddings;
  if (data_.longest() > positions) {
    fail_usage(
        "sft.max_length is {} and an example has {} tokens, but {} handles {} positions: "
        "lower sft.max_length to {}",
        job.config.sft().max_length(), data_.longest(), job.config.model().path(), positions,
        positions);
  }
}

std::optional<PolicyProbe> SftStage::probe() const {
  if (probe_.response.empty()) return std::nullopt;
  return PolicyProbe{probe_.prompt, probe_.response, probe_mask_, 1.0F};
}

StepReport SftStage::step(int64_t step) {
  const Timer timer;
  job_.begin_phase(fmt::format("sft step {}", step + 1));
  const proto::SftSection& sft = job_.config.sft();
  const int64_t size = sft.train_batch_size(), first = step * size;
  Array<SftExample> examples(size);
  for (int64_t i = 0; i < size; ++i) examples[i] = data_.example(first + i);
  const FullMask mask(examples);
  const Weights weights(examples);
  std::vector<learners::Tree> trees;
  trees.reserve(size);
  int64_t sequence_tokens = 0;
  const SftExample* tried = &examples.front();
  for (int64_t i = 0; i < size; ++i) {
    const float weight = weights.in_loss(examples[i]);
    if (weight == 0) continue;  // it would be computed for nothing
    if (trees.empty()) tried = &examples[i];
    trees.push_back(tree_of(examples[i], mask, weight, first + i));
    sequence_tokens += examples[i].tokens();
  }
  const learners::UpdateResult update = learn(step, trees);
  probe_ = *tried;
  const auto probe_mask = mask.of(probe_);
  probe_mask_.assign(probe_mask.begin(), probe_mask.end());
  return report(update, sequence_tokens, timer.seconds());
}

learners::UpdateResult SftStage::learn(int64_t step, Span<learners::Tree> trees) {
  const proto::OptimSection& optim = job_.config.sft().optim();
  const learners::LrSchedule schedule =
      lr_schedule(optim, job_.config.sft().total_training_steps());
  kernels::AdamWParams params = adamw_params(optim);
  params.lr = learners::learning_rate(schedule, step);
  learners::UpdateResult update;
  update.lr = params.lr;
  if (!trees.empty()) {
    update = learner_.update(trees, learners::sft_objective(), params, optim.clip_grad());
    if (update.skipped) spdlog::warn("{}", skipped_update_text(update));
  } else if (job_.learners->rank() == 0) {
    spdlog::warn("all rows of sft step {} have weight 0: nothing was learned from it", step + 1);
  }
  return update;
}

StepReport SftStage::report(const learners::UpdateResult& update, int64_t sequence_tokens,
                            double seconds) const {
  StepReport report;
  StepStats& stats = report.stats;
  stats.loss = update.sums.loss;
  stats.lr = update.lr;
  stats.grad_norm = update.grad_norm;
  stats.entropy = update.sums.entropy;
  stats.skipped_updates = update.skipped ? 1 : 0;
  stats.signal = stats.loss != 0;
  const double tokens = sequence_tokens, tokens_a_rank = tokens / seconds / job_.learners->size();
  stats.tokens_per_s = tokens_a_rank * job_.learners->size();
  Metrics& metrics = report.metrics;
  metrics["train/loss"] = stats.loss;
  metrics["train/entropy"] = stats.entropy;
  metrics["train/lr"] = stats.lr;
  metrics["train/grad_norm"] = stats.grad_norm;
  metrics["train/skipped_updates"] = stats.skipped_updates;
  metrics["train/not_finite_tokens"] = update.sums.not_finite.count;
  metrics["train/loss_tokens"] = update.sums.tokens;
  metrics["perf/total_num_tokens"] = tokens;
  metrics["perf/throughput"] = tokens_a_rank;
  metrics["perf/learner_gflops_per_s"] =
      update.gradient_seconds > 0 ? update.model_flops / update.gradient_seconds * 1e-9 : 0;
  metrics["timing_s/step"] = seconds;
  return report;
}

bool SftStage::validation_due(int64_t done) const {
  const int64_t freq = job_.config.trainer().test_freq();
  if (data_.val() == nullptr || freq == 0) return false;
  return done == 0 || done == job_.config.sft().total_training_steps() ||
         (freq > 0 && done % freq == 0);
}

SftStage::Validation SftStage::validate() {
  const Timer timer;
  const std::vector<SftExample>& rows = data_.val()->examples();
  const FullMask mask(rows);
  const Weights weights(rows);
  // A token's log-prob does not depend on what is computed beside it, and the sum is in
  // the rows' order, so that how the rows are cut changes no bit.
  const int64_t budget =
      job_.config.cluster().gradient_shards() * job_.config.actor().ppo_max_token_len_per_gpu();
  double loss = 0;
  for (size_t begin = 0, end = 0; begin < rows.size(); begin = end) {
    std::vector<learners::Tree> trees;
    std::vector<double> shares;
    for (int64_t tokens = 0;
         end < rows.size() && (trees.empty() || tokens + rows[end].tokens() <= budget); ++end) {
      const double share = weights.of(rows[end]);
      if (share == 0) continue;
      tokens += rows[end].tokens();
      trees.push_back(tree_of(rows[end], mask, 1.0F, end));
      shares.push_back(share);
    }
    if (trees.empty()) break;
    job_.begin_phase(fmt::format("sft validation, rows {}..{}", begin, end - 1));
    const std::vector<std::vector<float>> logprobs = learner_.logprobs(trees, /*temperature=*/1.0F);
    for (size_t i = 0; i < trees.size(); ++i) {
      const learners::Leaf& leaf = trees[i].leaves.front();
      for (size_t token = 0; token < leaf.tokens.size(); ++token) {
        if (leaf.loss_mask[token] != 0) loss -= shares[i] * logprobs[i][token];
      }
    }
  }
  Validation validation{loss / weights.total, std::ssize(rows), {}};
  validation.metrics["val/loss"] = validation.loss;
  validation.metrics["timing_s/testing"] = timer.seconds();
  return validation;
}

}  // namespace orrery::experiments
