// The gradient of a bias on the CPU; arguments are already checked (kernels/matmul.h).
#pragma once

#include "kernels/matmul.h"

namespace orrery::kernels::cpu {

void bias_backward(const Context& ctx, const BiasBackward& op);

}  // namespace orrery::kernels::cpu
