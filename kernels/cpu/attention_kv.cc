#include <cstring>

#include "kernels/cpu/attention.h"

namespace orrery {

void kv_write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                      const KvSegment& segment) {
  const int64_t head_dim = pool.head_dim;
  int64_t row = 0;
  while (row < segment.rows) {
    const int64_t position = segment.position + row;
    const int64_t slot = position % kKvBlock;
    const int64_t count = std::min(kKvBlock - slot, segment.rows - row);
    const int64_t block = segment.blocks[position / kKvBlock];
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      float* k_tile = pool.k + (block * pool.kv_heads + head) * head_dim * kKvBlock + slot;
      float* v_tile = pool.v + ((block * pool.kv_heads + head) * kKvBlock + slot) * head_dim;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t token = segment.row_begin + row + i;
        const float* from = k.at(token, head);
        for (int64_t d = 0; d < head_dim; ++d) k_tile[d * kKvBlock + i] = from[d];
        std::memcpy(v_tile + i * head_dim, v.at(token, head), head_dim * sizeof(float));
      }
    }
    row += count;
  }
}

void kv_copy_block(const KvPool& pool, int64_t from, int64_t to, int64_t count) {
  const int64_t rows = pool.kv_heads * pool.head_dim;
  const float* k_from = pool.k + from * pool.block_elements();
  float* k_to = pool.k + to * pool.block_elements();
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(k_to + r * kKvBlock, k_from + r * kKvBlock, count * sizeof(float));
  }
  for (int64_t head = 0; head < pool.kv_heads; ++head) {
    const int64_t offset = head * kKvBlock * pool.head_dim;
    std::memcpy(pool.v + to * pool.block_elements() + offset, pool.v + from * pool.block_elements() + offset,
                count * pool.head_dim * sizeof(float));
  }
}

}  // namespace orrery
