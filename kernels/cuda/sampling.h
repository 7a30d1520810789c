// CUDA half of kernels/sampling.h; arguments are already checked.
#pragma once

#include "kernels/sampling.h"

namespace orrery::kernels::cuda {

void sample_forward(const Context& ctx, const SampleForward& op);

}  // namespace orrery::kernels::cuda
