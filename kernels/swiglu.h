// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g / (1 + exp(-g)).
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// gate_up [t, 2 f]: columns [0, f) gate, [f, 2 f) up. out [t, f].
void swiglu_forward(const Context& ctx, Mat<float> out, Mat<const float> gate_up);

/// d_gate_up [t, 2 f] is overwritten (may be gate_up itself).
void swiglu_backward(const Context& ctx, Mat<float> d_gate_up, Mat<const float> dout,
                     Mat<const float> gate_up);

}  // namespace orrery::kernels
