// The CPU's KV pool. All blocks of keys come first, then those of values:
//   k [block][kv_head][head_dim][kKvBlock]   (transposed: lanes are keys)
//   v [block][kv_head][kKvBlock][head_dim]
// in float32.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_sizes.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels::cpu {

/// Largest head_dim: an item's queries and outputs live on a thread's stack.
inline constexpr int64_t kMaxHeadDim = 1024;

/// Elements of one block of keys; as many as of values.
inline int64_t block_elements(int64_t kv_heads, int64_t head_dim) {
  return kv_heads * head_dim * kKvBlock;
}

inline size_t kv_pool_bytes(const Context& /*ctx*/, const KvPoolBytes& op) {
  return 2 * op.blocks * block_elements(op.kv_heads, op.head_dim) * sizeof(float);
}

inline float* keys(const KvPool& pool) { return static_cast<float*>(pool.data); }
inline float* values(const KvPool& pool) {
  return keys(pool) + pool.blocks * block_elements(pool.kv_heads, pool.head_dim);
}

void kv_clear(const Context& ctx, const KvClear& op);
void kv_write(const Context& ctx, const KvWrite& op);
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels::cpu
