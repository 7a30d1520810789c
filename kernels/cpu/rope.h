// CPU half of kernels/rope.h; arguments are already checked.
#pragma once

#include "core/span.h"
#include "kernels/rope.h"

namespace orrery::kernels {

void rope_forward_cpu(const Context& ctx, Heads<float> x, Span<const int32_t> positions,
                      const RopeTable& table);
void rope_backward_cpu(const Context& ctx, Heads<float> dx, Span<const int32_t> positions,
                       const RopeTable& table);

}  // namespace orrery::kernels
