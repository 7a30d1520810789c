// CUDA half of kernels/rmsnorm.h; arguments are already checked.
#pragma once

#include "kernels/rmsnorm.h"

namespace orrery::kernels::cuda {

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op);
void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op);
void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op);

}  // namespace orrery::kernels::cuda
