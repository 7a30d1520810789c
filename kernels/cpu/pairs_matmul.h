// The CPU's matrix products of bf16 operands, summed in pairs; arguments are already
// checked (kernels/matmul.h, kernels/cpu/matmul.h).
#pragma once

#include "core/context.h"
#include "kernels/matmul.h"

namespace orrery::kernels::cpu {

void pairs_pack_weight(const Context& ctx, const PackWeight& op);
void pairs_matmul_forward(const Context& ctx, const MatmulForward& op);
void pairs_matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);
void pairs_matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);

}  // namespace orrery::kernels::cpu
