// CUDA half of kernels/optimizer.h; arguments are already checked.
#pragma once

#include "kernels/optimizer.h"

namespace orrery::kernels::cuda {

void adamw_step(const Context& ctx, const AdamwStep& op);
void sum_squares_chunks(const Context& ctx, const SumSquaresChunks& op);

}  // namespace orrery::kernels::cuda
