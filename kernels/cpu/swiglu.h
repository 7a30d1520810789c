// CPU half of kernels/swiglu.h; arguments are already checked.
#pragma once

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

void swiglu_forward_cpu(const Context& ctx, Mat<float> out, Mat<const float> gate_up);
void swiglu_backward_cpu(const Context& ctx, Mat<float> d_gate_up, Mat<const float> dout,
                         Mat<const float> gate_up);

}  // namespace orrery::kernels
