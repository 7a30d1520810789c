// The gradient of a bias on CUDA; arguments are already checked (kernels/matmul.h).
#pragma once

#include "kernels/matmul.h"

namespace orrery::kernels::cuda {

void bias_backward(const Context& ctx, const BiasBackward& op);

}  // namespace orrery::kernels::cuda
