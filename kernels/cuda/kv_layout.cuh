// Where the KV pool's elements lie on a CUDA device. In f32 as on the CPU
// (kernels/cpu/kv_pool.h):
//   k [block][kv_head][head_dim][kKvBlock],  v [block][kv_head][kKvBlock][head_dim]
// In bf16 a slot is a row, of keys as of values:
//   k, v [block][kv_head][kKvBlock][row],  row = kv_bf16_row(head_dim) elements
// All blocks of keys come first, then those of values. A row is aligned to 16 bytes and
// is so many whole 16-byte copies; its elements from head_dim on are zeros, as are
// slots behind the last one written (kernels/kv_pool.h). So a tile is one piece of
// memory that is copied without a look at head_dim, and its zeros change no bit of a
// dot16 chain. Scores sum along a row (plain ldmatrix), outputs down the rows
// (transposed ldmatrix). A block that nothing was ever written to may hold anything.
#pragma once

#include <cstdint>

#include "core/device_fn.h"
#include "core/dtype.h"
#include "kernels/cuda/kv_pool.h"

namespace orrery::kernels::cuda {

/// A pool in f32.
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
  /// Element d of a slot's key in a key_tile.
  ORRERY_DEVICE_FN int64_t key_index(int64_t slot, int64_t d) const { return d * kKvBlock + slot; }
};

inline KvBlocks blocks_of(const KvPool& pool) {
  KvBlocks blocks{static_cast<float*>(pool.data), nullptr, pool.kv_heads, pool.head_dim};
  blocks.values = blocks.keys + pool.blocks * blocks.block_elements();
  return blocks;
}

/// A pool in bf16.
struct KvBf16Blocks {
  Bf16* keys;
  Bf16* values;
  int64_t kv_heads, row;
  /// Of a block's keys, and of its values.
  ORRERY_DEVICE_FN int64_t block_elements() const { return kv_heads * row * kKvBlock; }
  /// [kKvBlock][row] of a block and head.
  ORRERY_DEVICE_FN Bf16* key_tile(int64_t block, int64_t head) const {
    return keys + (block * kv_heads + head) * row * kKvBlock;
  }
  ORRERY_DEVICE_FN Bf16* value_tile(int64_t block, int64_t head) const {
    return values + (block * kv_heads + head) * row * kKvBlock;
  }
  /// Element d of a slot's key in a key_tile.
  ORRERY_DEVICE_FN int64_t key_index(int64_t slot, int64_t d) const { return slot * row + d; }
};

inline KvBf16Blocks bf16_blocks_of(const KvPool& pool) {
  KvBf16Blocks blocks{static_cast<Bf16*>(pool.data), nullptr, pool.kv_heads,
                      kv_bf16_row(pool.head_dim)};
  blocks.values = blocks.keys + pool.blocks * blocks.block_elements();
  return blocks;
}

}  // namespace orrery::kernels::cuda
