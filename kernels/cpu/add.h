// y = a + b elementwise on the CPU, which embedding gradients and gradient sums have in
// common.
#pragma once

#include <cstdint>

namespace orrery::kernels {

/// y may be a or b.
void add_cpu(float* y, const float* a, const float* b, int64_t count);

}  // namespace orrery::kernels
