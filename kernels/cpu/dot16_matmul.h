// The CPU's matrix products of bf16 operands as dot16 chains; arguments are already
// checked (kernels/matmul.h, kernels/cpu/matmul.h). A packed weight W [n, k], rounded,
// is panels of 64 output features, zeros past the last: [n / 64][k][64]. The forward
// product then reads what it multiplies in order, and dx finds 16 features of an input
// side by side.
#pragma once

#include "core/context.h"
#include "kernels/matmul.h"

namespace orrery::kernels::cpu {

size_t dot16_packed_weight_bytes(int64_t n, int64_t k);
void dot16_pack_weight(const Context& ctx, const PackWeight& op);
void dot16_matmul_forward(const Context& ctx, const MatmulForward& op);
void dot16_matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);
void dot16_matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);

}  // namespace orrery::kernels::cpu
