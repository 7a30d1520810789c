// Where the KV pool's elements lie on a CUDA device: as on the CPU
// (kernels/cpu/kv_pool.h).
#pragma once

#include <cstdint>

#include "core/device_fn.h"
#include "kernels/kv_pool.h"

namespace orrery::kernels::cuda {

struct KvBlocks {
  float* keys;
  float* values;
  int64_t kv_heads, head_dim;
  /// Of a block's keys, and of its values.
  ORRERY_DEVICE_FN int64_t block_elements() const { return kv_heads * head_dim * kKvBlock; }
  /// [head_dim][kKvBlock] and [kKvBlock][head_dim] of a block and head.
  ORRERY_DEVICE_FN float* key_tile(int64_t block, int64_t head) const {
    return keys + (block * kv_heads + head) * head_dim * kKvBlock;
  }
  ORRERY_DEVICE_FN float* value_tile(int64_t block, int64_t head) const {
    return values + (block * kv_heads + head) * head_dim * kKvBlock;
  }
};

inline KvBlocks blocks_of(const KvPool& pool) {
  KvBlocks blocks{static_cast<float*>(pool.data), nullptr, pool.kv_heads, pool.head_dim};
  blocks.values = blocks.keys + pool.blocks * blocks.block_elements();
  return blocks;
}

}  // namespace orrery::kernels::cuda
