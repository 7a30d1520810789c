// CUDA half of kernels/logprob.h; arguments are already checked.
#pragma once

#include "kernels/logprob.h"

namespace orrery::kernels::cuda {

void logprob_forward(const Context& ctx, const LogprobForward& op);
void logprob_backward(const Context& ctx, const LogprobBackward& op);

}  // namespace orrery::kernels::cuda
