// The CPU's matrix products; arguments are already checked (kernels/matmul.h).
//
// A packed weight [n, k] is panels of 32 output features, k-major inside a panel.
// Element (j, p) is in panel j / 32 at offset p * 32 + j % 32; the last panel is padded
// with zeros.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_sizes.h"
#include "kernels/matmul.h"

namespace orrery::kernels::cpu {

/// Columns of W^T (output features) in one panel of a packed weight.
inline constexpr int64_t kPanelWidth = 32;

/// Error where that is more than an int64_t holds.
size_t packed_weight_bytes(const Context& ctx, const PackedWeightBytes& op);

void pack_weight(const Context& ctx, const PackWeight& op);
void matmul_forward(const Context& ctx, const MatmulForward& op);
void matmul_backward_input(const Context& ctx, const MatmulBackwardInput& op);
void matmul_backward_weight(const Context& ctx, const MatmulBackwardWeight& op);
void bias_backward(const Context& ctx, const BiasBackward& op);

}  // namespace orrery::kernels::cpu
