// CUDA half of kernels/kv_pool.h; arguments are already checked. The layout:
// kernels/cuda/kv_layout.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device_sizes.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels::cuda {

/// Elements of a copy of 16 bytes in bf16, of which a key or value is a whole number.
inline constexpr int64_t kKvBf16Copy = 8;
/// Elements that a bf16 key or value takes: head_dim, and zeros behind them.
inline int64_t kv_bf16_row(int64_t head_dim) {
  return (head_dim + kKvBf16Copy - 1) / kKvBf16Copy * kKvBf16Copy;
}

inline size_t kv_pool_bytes(const Context& /*ctx*/, const KvPoolBytes& op) {
  const int64_t row = op.dtype == DType::kBF16 ? kv_bf16_row(op.head_dim) : op.head_dim;
  return static_cast<size_t>(2 * op.blocks * op.kv_heads * row * kKvBlock) * dtype_bytes(op.dtype);
}

void kv_clear(const Context& ctx, const KvClear& op);
void kv_write(const Context& ctx, const KvWrite& op);
void rope_kv_write(const Context& ctx, const RopeKvWrite& op);
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels::cuda
