// The CPU's draws; arguments are already checked (kernels/sampling.h).
#pragma once

#include "kernels/sampling.h"

namespace orrery::kernels::cpu {

void sample_forward(const Context& ctx, const SampleForward& op);

}  // namespace orrery::kernels::cpu
