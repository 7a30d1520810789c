// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g / (1 + exp(-g)).
//
// Elements do not depend on each other, so there is no sum whose order matters. exp is
// kernels/scalar_math.h's exp_f32, division IEEE's, and every operation below is
// rounded once, in the order that the parentheses give; fma(a, b, c) is a b + c rounded
// once. CPUs give these bits whatever their instruction set. An op's matrices are all
// f32 or all bf16; what is written to a bf16 matrix is rounded to nearest even.
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// With g of gate and u of up:
///   out = (g / (1 + exp(-g))) * u
struct SwigluForward {
  ActMat out;           ///< [t, f]
  ConstActMat gate_up;  ///< [t, 2 f]: columns [0, f) gate, [f, 2 f) up
};
void swiglu_forward(const Context& ctx, const SwigluForward& op);

/// With d of dout:
///   s       = 1 / (1 + exp(-g))
///   d(up)   = d * (g * s)
///   d(gate) = (d * u) * (s * fma(g, 1 - s, 1))
struct SwigluBackward {
  ActMat d_gate_up;     ///< [t, 2 f], overwritten; may be gate_up itself
  ConstActMat dout;     ///< [t, f]
  ConstActMat gate_up;  ///< [t, 2 f]
};
void swiglu_backward(const Context& ctx, const SwigluBackward& op);

}  // namespace orrery::kernels
