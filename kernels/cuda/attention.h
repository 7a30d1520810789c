// CUDA half of kernels/attention.h; arguments are already checked.
#pragma once

#include "kernels/attention.h"

namespace orrery::kernels::cuda {

void attention_forward(const Context& ctx, const AttentionForward& op);
void attention_backward(const Context& ctx, const AttentionBackward& op);

}  // namespace orrery::kernels::cuda
