// CPU half of kernels/checksum.h; arguments are already checked.
#pragma once

#include "kernels/checksum.h"

namespace orrery::kernels::cpu {

FletcherSums checksum(const Context& ctx, const Checksum& op);

}  // namespace orrery::kernels::cpu
