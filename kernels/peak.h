// The machine's speed, to measure everything else against: as our own matrix product
// reaches it, and the ceiling.
#pragma once

#include "core/context.h"

namespace orrery::kernels {

/// Floating-point operations a second (2 a multiply-add) of matmul_forward on a large
/// square-ish product, best of several within about `seconds`. Allocates its operands.
double measure_gemm_peak(const Context& ctx, double seconds = 0.3);

/// Floating-point operations a second (2 a multiply-add) that `threads` threads do at
/// most, in vector multiply-adds on registers: the sum of each thread's best of `turns`
/// runs of well under 0.1 ms, by its CPU time.
double measure_fma_peak(int threads, int turns = 300);

/// Bytes a second that y += x moves over 256 MiB each (two reads and a write an
/// element), best of several within about `seconds`.
double measure_memory_bandwidth(const Context& ctx, double seconds = 0.3);

}  // namespace orrery::kernels
