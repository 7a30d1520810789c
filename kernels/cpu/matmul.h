// CPU side of kernels/matmul.h, which has the contracts and validates: these functions
// trust their arguments.
#pragma once

#include <cstddef>

#include "core/buffer.h"
#include "core/span.h"
#include "kernels/matmul.h"

namespace orrery::kernels {

void pack_weight_cpu(const Context& ctx, Mat<const float> w, DType dtype, void* memory);
void matmul_forward_cpu(const Context& ctx, Mat<float> y, Mat<const float> x, const PackedWeight& w,
                        Span<const float> bias, bool accumulate);
void matmul_backward_input_cpu(const Context& ctx, Mat<float> dx, Mat<const float> dy,
                               const PackedWeight& w, bool accumulate, Arena& arena);
void matmul_backward_weight_cpu(const Context& ctx, Mat<float> dw, Mat<const float> dy,
                                Mat<const float> x, Arena& arena);
void bias_backward_cpu(const Context& ctx, Span<float> db, Mat<const float> dy);

}  // namespace orrery::kernels
