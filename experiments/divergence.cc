#include "experiments/divergence.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "core/parallel.h"
#include "experiments/together.h"

namespace orrery {
namespace {

/// So many times the largest weight of the start (or 1) is no weight that training makes; its powers soon
/// overflow.
constexpr float kGrowth = 1e3F;

}  // namespace

float largest(const Context& ctx, std::span<const float> values) {
  constexpr uint32_t kMagnitude = 0x7FFFFFFF;  // bits of |x|, which rise with it; NaN's are above infinity's
  std::mutex mutex;
  uint32_t most = 0;
  parallel_for(ctx, std::ssize(values), 1 << 18, [&](int64_t begin, int64_t end) {
    uint32_t mine = 0;
    for (int64_t i = begin; i < end; ++i) {
      mine = std::max(mine, std::bit_cast<uint32_t>(values[static_cast<size_t>(i)]) & kMagnitude);
    }
    const std::lock_guard lock(mutex);
    most = std::max(most, mine);
  });
  const float value = std::bit_cast<float>(most);
  return std::isfinite(value) ? value : std::numeric_limits<float>::infinity();
}

DivergenceCheck::DivergenceCheck(const Context& ctx, Communicator& learners, std::span<const float> weights,
                                 Learner& learner)
    : ctx_(ctx),
      learners_(learners),
      weights_(weights),
      learner_(learner),
      limit_(kGrowth * std::max(1.0F, largest(ctx, weights))) {}

std::string DivergenceCheck::problem(const std::optional<PolicyProbe>& probe) const {
  ShardedAdamW& optimizer = learner_.optimizer();
  double most[2] = {0, std::max(largest(ctx_, optimizer.m()), largest(ctx_, optimizer.v()))};
  for (const Extent& e : optimizer.extents()) {
    most[0] = std::max<double>(most[0], largest(ctx_, part_of(weights_, e)));
  }
  learners_.all_reduce_max(most);
  if (!std::isfinite(most[0])) return "its weights are not finite";
  if (!std::isfinite(most[1])) return "the optimizer's moments are not finite";
  if (most[0] > limit_) return fmt::format("a weight has grown to {:.3g}", most[0]);
  if (!probe) return "";

  Leaf leaf;
  leaf.tokens = probe->response;
  leaf.loss_mask = probe->loss_mask;
  Tree tree{probe->prompt, {}};
  tree.leaves.push_back(std::move(leaf));
  for (const auto& values : learner_.logprobs(std::span(&tree, 1), probe->temperature)) {
    if (!std::isfinite(largest(ctx_, values))) return "the log-probs that it gives are not finite";
  }
  return "";
}

std::string skipped_too_often(int64_t skipped_steps, int64_t total) {
  if (skipped_steps < std::min(kMaxSkippedSteps, total)) return "";
  return fmt::format("{} step(s) in a row had a gradient that is not finite", skipped_steps);
}

std::string first_text(Communicator& comm, const std::string& mine) {
  for (std::string& text : comm.all_gather_bytes(mine)) {
    if (!text.empty()) return std::move(text);
  }
  return "";
}

void end_diverged(const std::string& where, const std::string& problem, const std::string& rate_key) {
  throw AgreedError(fmt::format("{}: the policy has diverged: {}; nothing of it is saved: lower {} (or its "
                                "clip_grad), then the same command resumes from the last checkpoint before",
                                where, problem, rate_key),
                    kExitDiverged);
}

}  // namespace orrery
