// CPU half of kernels/rope.h; arguments are already checked.
#pragma once

#include <span>

#include "kernels/rope.h"

namespace orrery::kernels {

void rope_forward_cpu(const Context& ctx, Heads<float> x, std::span<const int32_t> positions,
                      const RopeTable& table);
void rope_backward_cpu(const Context& ctx, Heads<float> dx, std::span<const int32_t> positions,
                       const RopeTable& table);

}  // namespace orrery::kernels
