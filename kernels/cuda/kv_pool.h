// CUDA half of kernels/kv_pool.h; arguments are already checked.
#pragma once

#include <cstddef>

#include "kernels/device_sizes.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels::cuda {

inline size_t kv_pool_bytes(const Context& /*ctx*/, const KvPoolBytes& op) {
  return static_cast<size_t>(2 * op.blocks * op.kv_heads * op.head_dim * kKvBlock) * sizeof(float);
}

void kv_clear(const Context& ctx, const KvClear& op);
void kv_write(const Context& ctx, const KvWrite& op);
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels::cuda
