// The machine's speed as our own matrix product reaches it, to measure everything else against.
#pragma once

#include "core/context.h"

namespace orrery {

/// Floating-point operations a second (2 a multiply-add) of matmul_forward on a large square-ish product,
/// best of several within about `seconds`. Allocates its operands.
double measure_gemm_peak(const Context& ctx, double seconds = 0.3);

/// Bytes a second that y += x moves over 256 MiB each (two reads and a write an element), best of several
/// within about `seconds`.
double measure_memory_bandwidth(const Context& ctx, double seconds = 0.3);

}  // namespace orrery
