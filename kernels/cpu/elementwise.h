// CPU half of kernels/elementwise.h, whose arguments are already checked, and the
// elementwise add that other ops share.
#pragma once

#include <cstdint>

#include "kernels/elementwise.h"

namespace orrery::kernels::cpu {

void fill(const Context& ctx, const Fill& op);
void nested_sum(const Context& ctx, const NestedSum& op);
void tree_sum(const Context& ctx, const TreeSum& op);

/// y = a + b on the calling thread. y may be a or b.
void add_elements(float* y, const float* a, const float* b, int64_t count);

}  // namespace orrery::kernels::cpu
