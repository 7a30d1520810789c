// CPU half of kernels/rope.h; arguments are already checked.
#pragma once

#include "kernels/rope.h"

namespace orrery::kernels::cpu {

/// Rotates x [t, heads * head_dim] in place.
void rotate(const Context& ctx, const ActMat& x, int64_t heads, const Rotation& rotation);
void rope_backward(const Context& ctx, const RopeBackward& op);

}  // namespace orrery::kernels::cpu
