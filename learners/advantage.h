// Group-relative advantages: pure functions of rewards and of how many tokens they
// weigh on. Sums run in sample order in double precision.
//
// One rule for what is not finite: a batch with such a reward, or with finite rewards
// so large that an advantage is no float, is refused as a whole, whatever the estimator
// and wherever the value stands.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace orrery::learners {

enum class AdvantageEstimator {
  kGrpo,  ///< r - mean(group), over std(group) + 1e-6 when norm_by_std (Shao et al. 2024; without: Liu et al.
  ///< 2025)
  kRloo,  ///< r - mean of the group's other samples (Ahmadian et al. 2024)
  /// r - mean(group), then whitened over the loss tokens of the whole batch (Hu 2025),
  /// as verl does: with x = r - mean(group) on every loss token of its sample, (x -
  /// mean(x)) / sqrt(var(x) + 1e-8), var with n
  /// - 1. A sample counts as often as it has loss tokens, and a group of equal rewards
  ///   is not 0 in general.
  kReinforcePlusPlusBaseline,
};

struct AdvantageParams {
  AdvantageEstimator estimator = AdvantageEstimator::kGrpo;
  bool norm_by_std = true;
};

/// What a group's advantages are made of, in sample order.
struct GroupRewards {
  uint64_t prompt_index = 0;  ///< for messages
  std::vector<float> rewards;
  std::vector<int64_t> loss_tokens;  ///< of each sample: entries of its loss mask that are set
};

/// One advantage a sample, which all its loss tokens share. std is the sample standard
/// deviation (n - 1), as in verl. grpo and rloo: a group of equal rewards, or of one
/// sample, has advantages 0. reinforce-plus-plus-baseline: the mean of a group of one
/// sample is 0, as in verl; a sample without loss tokens has advantage 0, and so has
/// every sample of a batch with fewer than two of them (verl: an error). Error naming
/// the first prompt and sample, in order, whose reward or advantage is not finite, and
/// how many.
std::vector<std::vector<float>> compute_advantages(std::span<const GroupRewards> groups,
                                                   const AdvantageParams& params);

}  // namespace orrery::learners
