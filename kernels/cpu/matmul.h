// The CPU's matrix products; arguments are already checked (kernels/matmul.h).
//
// A packed weight [n, k] is panels of 32 output features, k-major inside a panel; the
// last one is padded with zeros. In f32 element (j, p) is in panel j / 32 at offset
// p * 32 + j % 32. In bf16 inner indices go in pairs, and k is padded with zeros to a
// multiple of 32; kernels/cpu/pairs_matmul_pack-inl.h has the order, which the engine
// that multiplies chooses (kernels/cpu/pairs.h).
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

}  // namespace orrery::kernels::cpu
