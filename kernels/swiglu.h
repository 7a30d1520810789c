// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g / (1 + exp(-g)).
//
// Elements do not depend on each other, so there is no sum whose order matters. exp is
// kernels/scalar_math.h's exp_f32, division IEEE's, and every operation below is
// rounded once, in the order that the parentheses give; fma(a, b, c) is a b + c rounded
// once. CPUs give these bits whatever their instruction set.
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// gate_up [t, 2 f]: columns [0, f) gate, [f, 2 f) up. out [t, f]. With g of gate and u
/// of up:
///   out = (g / (1 + exp(-g))) * u
void swiglu_forward(const Context& ctx, Mat<float> out, Mat<const float> gate_up);

/// d_gate_up [t, 2 f] is overwritten (may be gate_up itself). dout [t, f]. With d of
/// dout:
///   s       = 1 / (1 + exp(-g))
///   d(up)   = d * (g * s)
///   d(gate) = (d * u) * (s * fma(g, 1 - s, 1))
void swiglu_backward(const Context& ctx, Mat<float> d_gate_up, Mat<const float> dout,
                     Mat<const float> gate_up);

}  // namespace orrery::kernels
