// CUDA's matrix products; arguments are already checked (kernels/matmul.h).
//
// A packed weight [n, k] is its rows, each padded with zeros to a multiple of 16 bytes:
// four elements in f32, eight in bf16.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_sizes.h"
#include "kernels/matmul.h"

namespace orrery::kernels::cuda {

size_t packed_weight_bytes(const Context& ctx, const PackedWeightBytes& op);

void pack_weight(const Context& ctx, const PackWeight& op);
void matmul_forward(const Context& ctx, const MatmulForward& op);
void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);
void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);

}  // namespace orrery::kernels::cuda
