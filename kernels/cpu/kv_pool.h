// The CPU's KV pool. All blocks of keys come first, then those of values. In float32:
//   k [block][kv_head][head_dim][kKvBlock]   (transposed: lanes are keys)
//   v [block][kv_head][kKvBlock][head_dim]
// In bf16 they are the right operands of kernels/cpu/pairs-inl.h, of scores and of
// outputs, whose inner indices stand in pairs:
//   k [block][kv_head][key_pairs][kKvBlock][2]          pairs of dimensions
//   v [block][kv_head][kKvBlock / 2][value_columns][2]  pairs of keys
// with zeros in the dimensions from head_dim on.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_sizes.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels::cpu {

/// Largest head_dim: an item's queries and outputs live on a thread's stack.
inline constexpr int64_t kMaxHeadDim = 1024;

/// Pairs of dimensions of a bf16 key: whole blocks of pairs.
inline int64_t key_pairs(int64_t head_dim) { return (head_dim + 31) / 32 * 16; }
/// Dimensions of a bf16 value: whole vectors, or tiles, of outputs.
inline int64_t value_columns(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

/// Elements of one head's keys in a block.
inline int64_t key_elements(DType dtype, int64_t head_dim) {
  return kKvBlock * (dtype == DType::kF32 ? head_dim : 2 * key_pairs(head_dim));
}
/// Elements of one head's values in a block.
inline int64_t value_elements(DType dtype, int64_t head_dim) {
  return kKvBlock * (dtype == DType::kF32 ? head_dim : value_columns(head_dim));
}

inline int64_t kv_pool_elements(DType dtype, int64_t blocks, int64_t kv_heads, int64_t head_dim) {
  return blocks * kv_heads * (key_elements(dtype, head_dim) + value_elements(dtype, head_dim));
}

inline size_t kv_pool_bytes(const Context& /*ctx*/, const KvPoolBytes& op) {
  return kv_pool_elements(op.dtype, op.blocks, op.kv_heads, op.head_dim) * dtype_bytes(op.dtype);
}

/// T: what pool.dtype says.
template <class T>
T* keys(const KvPool& pool) {
  return static_cast<T*>(pool.data);
}
template <class T>
T* values(const KvPool& pool) {
  return keys<T>(pool) + pool.blocks * pool.kv_heads * key_elements(kDTypeOf<T>, pool.head_dim);
}

void kv_clear(const Context& ctx, const KvClear& op);
void kv_write(const Context& ctx, const KvWrite& op);
void rope_kv_write(const Context& ctx, const RopeKvWrite& op);
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels::cpu
