// CPU half of kernels/elementwise.h, whose arguments are already checked, and the
// elementwise add that other ops share.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/span.h"

namespace orrery::kernels {

void zero_cpu(const Context& ctx, Span<float> y);
void accumulate_cpu(const Context& ctx, Span<float> y, Span<const float> x);
void tree_sum_cpu(const Context& ctx, Span<float> out, Span<const float* const> parts);

/// y = a + b on the calling thread. y may be a or b.
void add_cpu(float* y, const float* a, const float* b, int64_t count);

}  // namespace orrery::kernels
