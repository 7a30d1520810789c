// CUDA half of kernels/elementwise.h; arguments are already checked.
#pragma once

#include "kernels/elementwise.h"

namespace orrery::kernels::cuda {

void fill(const Context& ctx, const Fill& op);
/// Both sums take at most 256 parts: an Error for more.
void nested_sum(const Context& ctx, const NestedSum& op);
void tree_sum(const Context& ctx, const TreeSum& op);

}  // namespace orrery::kernels::cuda
