#include "experiments/sft_stage.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/log.h"
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
    for (const SftExample& example : examples)
      total += of(example) * static_cast<double>(example.loss_tokens());
  }
  double of(const SftExample& example) const { return largest > 0 ? example.weight / largest : 0; }
  /// Of each token in the loss: 1 over the number of tokens when all weights are equal.
  float in_loss(const SftExample& example) const {
    return total > 0 ? static_cast<float>(of(example) / total) : 0.0F;
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

Metrics SftStage::step(int64_t step) {
  const Timer timer;
  job_.phase(fmt::format("sft step {}", step + 1));
  const proto::SftSection& sft = job_.config.sft();
  const auto size = static_cast<size_t>(sft.train_batch_size());
  std::vector<SftExample> examples(size);
  for (size_t i = 0; i < size; ++i)
    examples[i] = data_.example(static_cast<uint64_t>(step) * size + i);
  const FullMask mask(examples);
  const Weights weights(examples);
  std::vector<learners::Tree> trees;
  trees.reserve(size);
  int64_t sequence_tokens = 0;
  const SftExample* tried = &examples.front();
  for (size_t i = 0; i < size; ++i) {
    const float weight = weights.in_loss(examples[i]);
    if (weight == 0) continue;  // it would be computed for nothing
    if (trees.empty()) tried = &examples[i];
    trees.push_back(tree_of(examples[i], mask, weight, static_cast<uint64_t>(step) * size + i));
    sequence_tokens += examples[i].tokens();
  }
  const learners::LrSchedule schedule = lr_schedule(sft.optim(), sft.total_training_steps());
  kernels::AdamWParams params = adamw_params(sft.optim());
  params.lr = static_cast<float>(learners::learning_rate(schedule, step));
  learners::UpdateResult update;
  update.lr = params.lr;
  if (!trees.empty()) {
    update = learner_.update(trees, learners::sft_objective(), params, sft.optim().clip_grad());
    if (update.skipped) spdlog::warn("{}", learners::skipped_update_text(update));
  } else if (job_.learners->rank() == 0) {
    spdlog::warn("all rows of sft step {} have weight 0: nothing was learned from it", step + 1);
  }

  probe_ = *tried;
  const auto probe_mask = mask.of(probe_);
  probe_mask_.assign(probe_mask.begin(), probe_mask.end());
  const double seconds = timer.seconds();
  Metrics metrics;
  metrics["train/loss"] = update.sums.loss;
  metrics["train/entropy"] = update.sums.entropy;
  metrics["train/lr"] = update.lr;
  metrics["train/grad_norm"] = update.grad_norm;
  metrics["train/skipped_updates"] = update.skipped ? 1 : 0;
  metrics["train/not_finite_tokens"] = update.sums.not_finite.count;
  metrics["train/loss_tokens"] = update.sums.tokens;
  metrics["perf/total_num_tokens"] = static_cast<double>(sequence_tokens);
  metrics["perf/throughput"] =
      static_cast<double>(sequence_tokens) / seconds / job_.learners->size();
  metrics["perf/learner_gflops_per_s"] =
      update.gradient_seconds > 0 ? update.model_flops / update.gradient_seconds * 1e-9 : 0;
  metrics["timing_s/step"] = seconds;
  return metrics;
}

bool SftStage::validation_due(int64_t done) const {
  const int64_t freq = job_.config.trainer().test_freq();
  if (data_.val() == nullptr || freq == 0) return false;
  return done == 0 || done == job_.config.sft().total_training_steps() ||
         (freq > 0 && done % freq == 0);
}

Metrics SftStage::validate() {
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
    job_.phase(fmt::format("sft validation, rows {}..{}", begin, end - 1));
    const std::vector<std::vector<float>> logprobs = learner_.logprobs(trees, /*temperature=*/1.0F);
    for (size_t i = 0; i < trees.size(); ++i) {
      const learners::Leaf& leaf = trees[i].leaves.front();
      for (size_t token = 0; token < leaf.tokens.size(); ++token) {
        if (leaf.loss_mask[token] != 0) loss -= shares[i] * static_cast<double>(logprobs[i][token]);
      }
    }
  }
  Metrics metrics;
  metrics["val/loss"] = loss / weights.total;
  metrics["timing_s/testing"] = timer.seconds();
  return metrics;
}

}  // namespace orrery::experiments
