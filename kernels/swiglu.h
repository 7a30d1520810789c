// SwiGLU (Shazeer 2020): out = silu(gate) * up, silu(g) = g / (1 + exp(-g)).
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

struct SwigluForward {
  ActMat out;           ///< [t, f]
  ConstActMat gate_up;  ///< [t, 2 f]: columns [0, f) gate, [f, 2 f) up
};
void swiglu_forward(const Context& ctx, const SwigluForward& op);

struct SwigluBackward {
  ActMat d_gate_up;     ///< [t, 2 f], overwritten; may be gate_up itself
  ConstActMat dout;     ///< [t, f]
  ConstActMat gate_up;  ///< [t, 2 f]
};
void swiglu_backward(const Context& ctx, const SwigluBackward& op);

}  // namespace orrery::kernels
