// The most multiply-adds this CPU does: the ceiling that products are measured against.
#pragma once

#include <cstdint>

namespace orrery {

/// Runs `rounds` rounds of independent vector FMAs in registers; returns how many floating-point operations
/// they were.
double run_fmas(int64_t rounds);

}  // namespace orrery
