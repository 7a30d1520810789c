#include "learners/advantage.h"

#include <cmath>

#include "core/error.h"
#include "core/error_report.h"
#include "learners/advantages/gdpo.h"
#include "learners/advantages/gpg.h"
#include "learners/advantages/grpo.h"
#include "learners/advantages/grpo_passk.h"
#include "learners/advantages/maxrl.h"
#include "learners/advantages/opo.h"
#include "learners/advantages/passk.h"
#include "learners/advantages/reinforce_plus_plus.h"
#include "learners/advantages/reinforce_plus_plus_baseline.h"
#include "learners/advantages/remax.h"
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
  using Section = proto::AlgorithmSection;
  const bool by_std = algorithm.norm_adv_by_std_in_grpo();
  const auto of_each = [&](auto&& estimator) {
    std::vector<std::vector<float>> result;
    for (const GroupRewards& group : groups) result.push_back(estimator(group));
    return result;
  };
  switch (algorithm.adv_estimator()) {
    case Section::GRPO:
      return of_each([&](const GroupRewards& g) { return grpo_advantages(g.rewards, by_std); });
    case Section::RLOO:
      return of_each([](const GroupRewards& g) { return rloo_advantages(g.rewards); });
    case Section::REINFORCE_PLUS_PLUS_BASELINE:
      return reinforce_plus_plus_baseline_advantages(groups);
    case Section::REINFORCE_PLUS_PLUS:
      return reinforce_plus_plus_advantages(groups);
    case Section::OPO:
      return of_each(opo_advantages);
    case Section::GPG:
      return gpg_advantages(groups);
    case Section::GRPO_PASSK:
      return of_each(
          [&](const GroupRewards& g) { return grpo_passk_advantages(g.rewards, by_std); });
    case Section::PASSK:
      return of_each([&](const GroupRewards& g) {
        return passk_advantages(g.rewards, algorithm.passk_k(), by_std);
      });
    case Section::GDPO: {
      const std::vector<std::string> names(algorithm.gdpo_reward_keys().begin(),
                                           algorithm.gdpo_reward_keys().end());
      const auto& weights = algorithm.gdpo_reward_weights();
      return gdpo_advantages(groups, names, {weights.data(), static_cast<size_t>(weights.size())});
    }
    case Section::MAXRL:
      return of_each(maxrl_advantages);
    case Section::REMAX:
      return of_each(remax_advantages);
  }
  return {};
}

}  // namespace

bool compares_samples(proto::AlgorithmSection::AdvEstimator estimator) {
  return estimator != proto::AlgorithmSection::REINFORCE_PLUS_PLUS &&
         estimator != proto::AlgorithmSection::REMAX;
}

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
