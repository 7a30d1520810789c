// CPU half of kernels/reductions.h; arguments are already checked.
#pragma once

#include "kernels/reductions.h"

namespace orrery::kernels::cpu {

FletcherSums checksum(const Context& ctx, const Checksum& op);
float max_abs(const Context& ctx, const MaxAbs& op);

}  // namespace orrery::kernels::cpu
