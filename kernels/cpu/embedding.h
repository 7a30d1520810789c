// CPU half of kernels/embedding.h; arguments are already checked.
#pragma once

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels {

void embedding_forward_cpu(const Context& ctx, Mat<float> out, Mat<const float> table,
                           Span<const int32_t> ids);
void embedding_backward_cpu(const Context& ctx, Mat<float> dtable, Mat<const float> dout,
                            Span<const int32_t> ids);

}  // namespace orrery::kernels
