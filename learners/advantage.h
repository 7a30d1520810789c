// Group-relative advantages: pure functions of rewards. Sums run in sample order in double precision.
#pragma once

#include <span>
#include <vector>

namespace orrery {

enum class AdvantageEstimator {
  kGrpo,  ///< r - mean(group), over std(group) + 1e-6 when norm_by_std (Shao et al. 2024; without: Liu et al.
          ///< 2025)
  kRloo,  ///< r - mean of the group's other samples (Ahmadian et al. 2024)
  kReinforcePlusPlusBaseline,  ///< r - mean(group), then over the whole batch's std (Hu 2025)
};

struct AdvantageParams {
  AdvantageEstimator estimator = AdvantageEstimator::kGrpo;
  bool norm_by_std = true;
};

/// rewards[g]: rewards of group g's samples, in sample order. Returns the same shape. std is the sample
/// standard deviation (n - 1), as in verl. A group of equal rewards, or of one sample, has advantages 0.
std::vector<std::vector<float>> compute_advantages(std::span<const std::vector<float>> rewards,
                                                   const AdvantageParams& params);

}  // namespace orrery
