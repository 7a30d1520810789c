// CUDA half of kernels/kv_pool.h; arguments are already checked.
#pragma once

#include "kernels/kv_pool.h"

namespace orrery::kernels::cuda {

void kv_clear(const Context& ctx, const KvClear& op);
void kv_write(const Context& ctx, const KvWrite& op);
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels::cuda
