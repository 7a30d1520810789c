// Shows a profile of several equal steps as shares of a step and of what the machine
// can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/profile.h"

namespace orrery::tools {

struct Breakdown {
  /// Figures of one step: means over the steps.
  struct Row {
    std::string name;
    double calls = 0;
    double seconds = 0;
    double share = 0;         ///< share of the step's seconds
    double flops = 0;         ///< FLOP/s; 0 when none are counted
    double of_product = 0;    ///< flops over the product peak
    double bytes = 0;         ///< bytes/s; 0 when none are counted
    double of_bandwidth = 0;  ///< bytes over the memory bandwidth; above 1 if caches held some
  };
  struct Phase : Row {
    std::vector<Row> ops;  ///< longest first, then "other": the phase's time outside ops
  };
  std::vector<Phase> phases;  ///< in the step's order; what is outside all phases comes last
  double seconds = 0;         ///< the sum over all phases
};

/// Makes the breakdown of `steps` steps. `product_peak` is in FLOP/s,
/// `memory_bandwidth` in bytes/s.
Breakdown make_breakdown(const Profile& profile, int64_t steps, double product_peak,
                         double memory_bandwidth);

/// Returns the breakdown as a table for people, under a line of headings. Every line
/// ends in a newline.
std::string breakdown_table(const Breakdown& breakdown);

}  // namespace orrery::tools
