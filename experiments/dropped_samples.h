// Samples that are missing because their environment failed: what is left to learn
// from, and what is said of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "rollout/trajectory.h"

namespace orrery::experiments {

struct DroppedSamples {
  uint64_t samples = 0;  ///< that have no reward
  uint64_t all = 0;      ///< that were asked for
  uint64_t groups = 0;   ///< that are left out, as too few of their samples remain
};

/// Removes the groups with fewer than `least` samples (at least 1).
DroppedSamples drop_small_groups(std::vector<rollout::Group>& groups, size_t least);

/// "generate step 12: 3 of 256 samples are dropped, ...". `troubles`: what each rank's
/// environment says (Environment::take_failure_text).
std::string dropped_text(const std::string& label, const DroppedSamples& dropped,
                         std::span<const std::string> troubles);

}  // namespace orrery::experiments
