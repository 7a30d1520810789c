// A profile of some equal steps as shares of a step and of what the machine can do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/profile.h"

namespace orrery::tools {

struct Breakdown {
  /// Of one step: the mean over the steps.
  struct Row {
    std::string name;
    double calls = 0;
    double seconds = 0;
    double share = 0;         ///< of the step's seconds
    double flops = 0;         ///< a second, 0: none are counted
    double of_product = 0;    ///< flops over the product peak
    double bytes = 0;         ///< a second, 0: none are counted
    double of_bandwidth = 0;  ///< bytes over the memory bandwidth; above 1 where caches held some
  };
  struct Phase : Row {
    std::vector<Row> ops;  ///< longest first, then "other": what the ops leave of the phase
  };
  std::vector<Phase> phases;  ///< in the order of the step; what is outside of all comes last
  double seconds = 0;         ///< of all phases
};

/// product_peak: operations a second; memory_bandwidth: bytes a second.
Breakdown make_breakdown(const Profile& profile, int64_t steps, double product_peak,
                         double memory_bandwidth);

/// For reading, with a line of headings; lines end in a newline.
std::string breakdown_table(const Breakdown& breakdown);

}  // namespace orrery::tools
