#include "learners/advantage.h"

#include <cmath>

#include "core/error.h"
#include "core/error_report.h"
#include "learners/advantages/grpo.h"
#include "learners/advantages/reinforce_plus_plus_baseline.h"
#include "learners/advantages/rloo.h"

namespace orrery::learners {
namespace {

/// values_of(g): what to look at in group g.
template <class ValuesOf>
void refuse_if_not_finite(std::span<const GroupRewards> groups, const char* what, const char* todo,
                          ValuesOf&& values_of) {
  int64_t count = 0, all = 0;
  std::string first;
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    int64_t sample = 0;
    for (const float value : values_of(g)) {
      ++all;
      if (!std::isfinite(value) && count++ == 0)
        first = fmt::format("prompt {} sample {} ({})", groups[g].prompt_index, sample, value);
      ++sample;
    }
  }
  if (count == 0) return;
  fail_user_error("{} of the batch's {} {}s are not finite numbers, first that of {}: {}", count,
                  all, what, first, todo);
}

std::vector<std::vector<float>> estimate(std::span<const GroupRewards> groups,
                                         const proto::AlgorithmSection& algorithm) {
  std::vector<std::vector<float>> result;
  switch (algorithm.adv_estimator()) {
    case proto::AlgorithmSection::GRPO:
      for (const GroupRewards& group : groups)
        result.push_back(grpo_advantages(group.rewards, algorithm.norm_adv_by_std_in_grpo()));
      return result;
    case proto::AlgorithmSection::RLOO:
      for (const GroupRewards& group : groups) result.push_back(rloo_advantages(group.rewards));
      return result;
    case proto::AlgorithmSection::REINFORCE_PLUS_PLUS_BASELINE:
      return reinforce_plus_plus_baseline_advantages(groups);
  }
  return result;
}

}  // namespace

std::vector<std::vector<float>> compute_advantages(std::span<const GroupRewards> groups,
                                                   const proto::AlgorithmSection& algorithm) {
  for (const GroupRewards& group : groups) {
    ORRERY_CHECK(group.loss_tokens.size() == group.rewards.size(), "{} token counts of {} rewards",
                 group.loss_tokens.size(), group.rewards.size());
  }
  refuse_if_not_finite(groups, "reward", "fix the environment or the data row",
                       [&](int64_t g) -> const std::vector<float>& { return groups[g].rewards; });
  std::vector<std::vector<float>> result = estimate(groups, algorithm);
  refuse_if_not_finite(groups, "advantage",
                       "the rewards are too large for float32; scale them down",
                       [&](int64_t g) -> const std::vector<float>& { return result[g]; });
  return result;
}

}  // namespace orrery::learners
