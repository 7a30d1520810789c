// CUDA half of kernels/rope.h; arguments are already checked.
#pragma once

#include "kernels/rope.h"

namespace orrery::kernels::cuda {

void rope_backward(const Context& ctx, const RopeBackward& op);

}  // namespace orrery::kernels::cuda
