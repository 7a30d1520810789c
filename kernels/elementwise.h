// Sums and fills of flat arrays: what the gradient's reduction is made of
// (learners/ordered_reducer.h). An add is one rounded float32 add per element, so the
// bits depend on neither the vector width nor threads.
#pragma once

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// y = value, elementwise.
struct Fill {
  Vec<float> y;
  float value = 0.0f;
};
void fill(const Context& ctx, const Fill& op);

/// out = parts[0] + (parts[1] + (... + parts[n - 1])), elementwise. One pass over
/// memory.
struct NestedSum {
  Vec<float> out;  ///< may be one of the parts
  /// A list in host memory of arrays in device memory, each as long as `out`: two at
  /// least.
  Span<const float* const> parts;
};
void nested_sum(const Context& ctx, const NestedSum& op);

/// Levels of the deepest tree that tree_sum() takes: 65,536 parts.
inline constexpr int64_t kMaxTreeLevels = 16;

/// out = the sum of the parts in tree order: the parts are leaves of a complete binary
/// tree, every inner node is left + right, elementwise. One pass over memory.
struct TreeSum {
  Vec<float> out;  ///< may be one of the parts
  /// A list in host memory of arrays in device memory, each as long as `out`. Their
  /// number must be a power of two, at least 2 and at most 2^kMaxTreeLevels.
  Span<const float* const> parts;
};
void tree_sum(const Context& ctx, const TreeSum& op);

}  // namespace orrery::kernels
