// Token embedding. An id outside [0, table.rows) is an Error that names its position
// and the id.
#pragma once

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// out [t, d] = table [vocab, d] at ids [t].
void embedding_forward(const Context& ctx, Mat<float> out, Mat<const float> table,
                       Span<const int32_t> ids);

/// dtable[ids[i]] += dout[i], for i in rising order (plain adds). The bits are the same
/// for any thread count, and for one call or two over the same tokens.
void embedding_backward(const Context& ctx, Mat<float> dtable, Mat<const float> dout,
                        Span<const int32_t> ids);

}  // namespace orrery::kernels
