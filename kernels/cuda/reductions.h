// CUDA half of kernels/reductions.h; arguments are already checked.
#pragma once

#include "kernels/reductions.h"

namespace orrery::kernels::cuda {

/// Both wait for the stream, and calls on all threads take turns.
FletcherSums checksum(const Context& ctx, const Checksum& op);
float max_abs(const Context& ctx, const MaxAbs& op);

}  // namespace orrery::kernels::cuda
