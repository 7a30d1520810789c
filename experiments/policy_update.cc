#include "experiments/policy_update.h"

#include <algorithm>

#include "core/error.h"
#include "core/timer.h"
#include "experiments/overlong.h"
#include "experiments/rl_metrics.h"
#include "experiments/rollout_correction.h"
#include "learners/advantage.h"
#include "learners/batch.h"
#include "learners/losses/aggregation.h"
#include "learners/objective.h"

namespace orrery::experiments {
namespace {

/// The step's whole batch, as its mini-batches see it.
struct Batch {
  std::span<const rollout::Group> groups;
  std::span<const std::vector<std::vector<float>>> advantages;  ///< of samples' tokens
  const RolloutCorrection& correction;
};

/// A sample's advantage on each of its response tokens.
std::vector<std::vector<std::vector<float>>> per_token(
    std::span<const rollout::Group> groups, std::span<const std::vector<float>> advantages) {
  std::vector<std::vector<std::vector<float>>> result(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].samples.size(); ++i)
      result[g].emplace_back(groups[g].samples[i].tokens.size(), advantages[g][i]);
  }
  return result;
}

/// The weights have moved since any sample was drawn.
constexpr uint64_t kNoVersion = UINT64_MAX;

/// Every token was sampled under this version, and so was all it attends to.
bool all_of_version(const rollout::Trajectory& t, uint64_t version) {
  return std::all_of(t.weight_versions.begin(), t.weight_versions.end(),
                     [version](uint64_t v) { return v == version; });
}

/// Trees of the mini-batch of groups [first, first + count). Weights are by the counts
/// of this mini-batch over all ranks. `version`: of the learner's weights, or
/// kNoVersion.
std::vector<learners::Tree> mini_batch_trees(const Batch& batch, int64_t first, int64_t count,
                                             uint64_t version, const proto::Config& config) {
  const std::span<const rollout::Group> groups = batch.groups.subspan(first, count);
  int64_t total_tokens = 0, samples = 0;
  std::vector<std::vector<learners::Leaf>> leaves(groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].samples.size(); ++i) {
      const rollout::Trajectory& t = groups[g].samples[i];
      if (leaves_loss(t, config.actor())) continue;
      learners::Leaf leaf;
      leaf.tokens = t.tokens;
      leaf.loss_mask = t.loss_mask;
      leaf.old_logprobs = batch.correction.old_logprobs(first + g, i);
      leaf.is_weights = batch.correction.weights(first + g, i);
      if (leaf.is_weights.empty()) {  // the fingerprint is the learner's
        leaf.old_logprobs = t.logprobs;
        leaf.exact = version != kNoVersion && all_of_version(t, version);
      }
      leaf.advantages = batch.advantages[first + g][i];
      leaf.prompt_index = t.prompt_index;
      leaf.sample_index = t.sample_index;
      total_tokens += leaf.loss_tokens();
      samples += leaf.loss_tokens() > 0 ? 1 : 0;
      leaves[g].push_back(std::move(leaf));
    }
  }
  std::vector<learners::Tree> trees;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (learners::Leaf& leaf : leaves[g]) {
      leaf.weight =
          learners::aggregation_weight(config.actor().loss_agg_mode(), leaf.loss_tokens(),
                                       total_tokens, samples, config.data().max_response_length());
    }
    for (learners::Tree& tree :
         learners::make_trees(groups[g].samples.front().prompt_tokens, std::move(leaves[g]),
                              config.actor().prefix_tree_max_tokens())) {
      trees.push_back(std::move(tree));
    }
  }
  return trees;
}

/// While it lives the update may be given up; it ends with the first optimizer step, or
/// when an error unwinds.
class MayGiveUp {
 public:
  MayGiveUp(bool& flag, bool may) : flag_(flag) { flag_ = may; }
  ~MayGiveUp() { flag_ = false; }
  MayGiveUp(const MayGiveUp&) = delete;
  MayGiveUp& operator=(const MayGiveUp&) = delete;

 private:
  bool& flag_;
};

}  // namespace

PolicyUpdate::PolicyUpdate(Job& job, learners::Learner& learner, int64_t steps_before)
    : job_(job), learner_(learner), steps_before_(steps_before) {}

std::string PolicyUpdate::run(int64_t step, std::span<const rollout::Group> groups,
                              std::span<const float> greedy_rewards, uint64_t version,
                              StepReport& report, Timings& timings) {
  const proto::Config& config = job_.config;
  job_.begin_phase(fmt::format("update step {}", steps_before_ + step + 1));
  std::vector<learners::GroupRewards> rewards = group_rewards(groups, greedy_rewards);
  shape_rewards(rewards, groups, config);
  std::vector<std::vector<float>> advantages;
  {
    const ScopedTimer timer(timings["adv"]);
    advantages = learners::compute_advantages(rewards, config.algorithm());
  }
  report.stats.signal = add_advantage_metrics(report.metrics, rewards, advantages);
  // Until the first optimizer step nothing has changed. More ranks than one would have
  // to agree.
  const MayGiveUp phase(may_give_up_, job_.world.size() == 1);

  const RolloutCorrection correction = [&] {
    const ScopedTimer timer(timings["old_log_prob"]);
    return RolloutCorrection(
        learner_, rollout::fingerprint_of(job_.ctx.device, job_.model().compute_dtype()), groups,
        static_cast<float>(config.rollout().temperature()), config.actor().prefix_tree_max_tokens(),
        static_cast<float>(config.algorithm().rollout_is_threshold()));
  }();
  if (!correction.any()) timings.erase("old_log_prob");

  const ScopedTimer timer(timings["update_actor"]);
  const int64_t prompts = std::ssize(groups);
  const int64_t mini =
      config.actor().ppo_mini_batch_size() > 0 ? config.actor().ppo_mini_batch_size() : prompts;
  const learners::LrSchedule schedule =
      lr_schedule(config.actor().optim(), config.trainer().total_training_steps());
  kernels::AdamWParams params = adamw_params(config.actor().optim());
  params.lr = static_cast<float>(learners::learning_rate(schedule, step));
  const learners::Objective objective = learners::policy_objective(config);
  const auto token_advantages = per_token(groups, advantages);
  const Batch batch{groups, token_advantages, correction};
  UpdateMetrics updates;
  for (int64_t epoch = 0; epoch < config.actor().ppo_epochs(); ++epoch) {
    for (int64_t begin = 0; begin < prompts; begin += mini) {
      // Later mini-batches are off policy: the weights have moved since the samples
      // were drawn.
      const bool on_policy = epoch == 0 && begin == 0;
      std::vector<learners::Tree> trees = mini_batch_trees(
          batch, begin, std::min(mini, prompts - begin), on_policy ? version : kNoVersion, config);
      const learners::UpdateResult result =
          learner_.update(trees, objective, params, config.actor().optim().clip_grad());
      may_give_up_ = false;
      if (result.refused) return logprob_mismatch_text(steps_before_ + step + 1, result.sums);
      updates.add(result, /*first_epoch=*/epoch == 0);
    }
  }
  updates.write(report.metrics, timings);
  updates.fill(report.stats);
  // After the updates' own comparison, which this replaces where it recomputed.
  correction.write(report.metrics);
  return "";
}

}  // namespace orrery::experiments
