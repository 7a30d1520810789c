// CUDA half of kernels/swiglu.h; arguments are already checked.
#pragma once

#include "kernels/swiglu.h"

namespace orrery::kernels::cuda {

void swiglu_forward(const Context& ctx, const SwigluForward& op);
void swiglu_backward(const Context& ctx, const SwigluBackward& op);

}  // namespace orrery::kernels::cuda
