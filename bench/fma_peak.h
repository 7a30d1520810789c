// The most multiply-adds this CPU does: the ceiling that products are measured against.
#pragma once

#include <cstdint>

namespace orrery {

/// Runs `rounds` rounds of independent vector FMAs in registers; returns how many floating-point operations
/// they were.
double run_fmas(int64_t rounds);

/// Floating-point operations a second of `threads` threads: the sum of each thread's best of many short runs,
/// by its CPU time.
double measure_fma_peak(int threads);

}  // namespace orrery
