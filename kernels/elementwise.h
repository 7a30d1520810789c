// Sums and zeros over flat arrays: what the gradient's reduction is made of
// (learners/ordered_reducer.h). An add is one rounded float32 add per element, so the
// bits depend on neither the vector width nor threads.
#pragma once

#include "core/context.h"
#include "core/span.h"

namespace orrery::kernels {

/// y = 0, elementwise.
void zero(const Context& ctx, Span<float> y);

/// y += x, elementwise. x must not overlap y. Throws Error for unequal lengths.
void accumulate(const Context& ctx, Span<float> y, Span<const float> x);

/// Levels of the deepest tree that tree_sum() takes: 65,536 parts.
inline constexpr int64_t kMaxTreeLevels = 16;

/// out = the sum of the parts in tree order: the parts are leaves of a complete binary
/// tree, every inner node is left + right, elementwise. One pass over memory. Every
/// part has out's length, and out may be one of the parts. Throws Error unless the
/// number of parts is a power of two, at least 2 and at most 2^kMaxTreeLevels.
void tree_sum(const Context& ctx, Span<float> out, Span<const float* const> parts);

}  // namespace orrery::kernels
