// Token embedding. Ids lie in device memory and are not checked: each must be inside
// the table.
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// out = table at ids.
struct EmbeddingForward {
  ActMat out;              ///< [t, d]
  Mat<const float> table;  ///< [vocab, d]
  Vec<const int32_t> ids;  ///< [t]
};
void embedding_forward(const Context& ctx, const EmbeddingForward& op);

/// dtable[ids[i]] += dout[i], for i in rising order (plain adds). The bits are the same
/// for any thread count, and for one call or two over the same tokens. With run_ends
/// each run has a sum for each of its tokens, from 0 in rising order, which is then
/// added to dtable, run by run.
struct EmbeddingBackward {
  Mat<float> dtable;       ///< [vocab, d]
  Mat<const float> dout;   ///< [t, d]
  Vec<const int32_t> ids;  ///< [t]
  /// In host memory: where the runs of rows end, rising, the last one at t. Empty: no
  /// runs.
  Span<const int64_t> run_ends{};
};
void embedding_backward(const Context& ctx, const EmbeddingBackward& op);

}  // namespace orrery::kernels
