#include "experiments/divergence.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "experiments/on_all_ranks.h"
#include "kernels/reductions.h"

namespace orrery::experiments {
namespace {

/// Of the largest weight at the stage's start, or 1. docs/design.md says why.
constexpr double kGrowth = 3, kGrowthOfAnUpdate = 0.1, kMaxGrowth = 1000;

/// Below it a policy counts as sure of its tokens: their gradient may be too small for
/// a float.
constexpr double kSure = 1e-3;

}  // namespace

double largest_sound_weight(double start_largest, int64_t updates) {
  const double growth = std::min(kGrowth + kGrowthOfAnUpdate * updates, kMaxGrowth);
  return growth * std::max(1.0, start_largest);
}

std::string state_problem(double weight, double moment, double limit) {
  if (!std::isfinite(weight)) return "its weights are not finite";
  if (!std::isfinite(moment)) return "the optimizer's moments are not finite";
  if (weight > limit) {
    return fmt::format("a weight has grown to {:.3g}, where {:.3g} would be much", weight, limit);
  }
  return "";
}

bool is_dead_gradient(double grad_norm, double entropy, bool signal) {
  return signal && grad_norm == 0 && entropy > kSure;
}

DivergenceCheck::DivergenceCheck(const Context& ctx, comm::Communicator& learners,
                                 Vec<const float> weights, learners::Learner& learner,
                                 double start_largest)
    : ctx_(ctx),
      learners_(learners),
      weights_(weights),
      learner_(learner),
      start_largest_(start_largest) {}

double DivergenceCheck::begin_stage() {
  return start_largest_ = kernels::max_abs(ctx_, {.x = weights_});
}

std::string DivergenceCheck::problem(const std::optional<PolicyProbe>& probe) const {
  learners::ShardedAdamW& optimizer = learner_.optimizer();
  const auto largest = [&](Vec<const float> values) {
    return double{kernels::max_abs(ctx_, {.x = values})};
  };
  double most[2] = {0, std::max(largest(optimizer.m()), largest(optimizer.v()))};
  for (const Extent& e : optimizer.extents())
    most[0] = std::max(most[0], largest(elements_of(weights_, e)));
  learners_.all_reduce_max(most);
  std::string wrong =
      state_problem(most[0], most[1], largest_sound_weight(start_largest_, optimizer.t()));
  if (!wrong.empty() || !probe) return wrong;

  learners::Leaf leaf;
  leaf.tokens = probe->response;
  leaf.loss_mask = probe->loss_mask;
  learners::Tree tree{probe->prompt, {}};
  tree.leaves.push_back(std::move(leaf));
  for (const auto& values : learner_.logprobs(std::span(&tree, 1), probe->temperature)) {
    if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); }))
      return "the log-probs that it gives are not finite";
  }
  return "";
}

std::string skipped_steps_problem(int64_t skipped_steps, int64_t total, bool dead) {
  if (skipped_steps < std::min(kMaxSkippedSteps, total)) return "";
  if (dead) {
    return fmt::format(
        "{} step(s) in a row taught nothing, the last because the gradient is exactly 0, "
        "although there was something to learn",
        skipped_steps);
  }
  return fmt::format("{} step(s) in a row had a gradient that is not finite", skipped_steps);
}

std::string text_of_lowest_rank(comm::Communicator& comm, const std::string& mine) {
  for (std::string& text : comm.all_gather_bytes(mine)) {
    if (!text.empty()) return std::move(text);
  }
  return "";
}

void end_diverged(const std::string& where, const std::string& problem, const std::string& rate_key,
                  bool resumes) {
  throw AgreedError(
      fmt::format("{}: the policy has diverged: {}; nothing of it is saved: "
                  "lower {} (or its clip_grad), then the same command{} resumes from the last "
                  "checkpoint before",
                  where, problem, rate_key, resumes ? "" : " with trainer.resume=auto"),
      kExitDiverged);
}

}  // namespace orrery::experiments
