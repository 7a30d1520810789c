// Keys and values into the blocks of the KV cache (kernels/attention.h has the layout:
// keys transposed, values row by row).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/kv_pool.cc"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                   const KvSegment& segment) {
  const int64_t head_dim = pool.head_dim;
  int64_t row = 0;
  while (row < segment.rows) {
    const int64_t position = segment.position + row;
    const int64_t slot = position % kKvBlock;
    const int64_t count = std::min(kKvBlock - slot, segment.rows - row);
    const int64_t block = segment.blocks[position / kKvBlock];
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t slab = (block * pool.kv_heads + head) * head_dim * kKvBlock;
      const float* from[kKvBlock];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t token = segment.row_begin + row + i;
        from[i] = k.at(token, head);
        std::copy_n(v.at(token, head), head_dim, pool.v + slab + (slot + i) * head_dim);
      }
      attention::transpose_rows(from, count, head_dim, pool.k + slab + slot, kKvBlock);
    }
    row += count;
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels {

HWY_EXPORT(write_segment);

void kv_write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                      const KvSegment& segment) {
  HWY_DYNAMIC_DISPATCH(write_segment)(pool, k, v, segment);
}

void kv_copy_block(const KvPool& pool, int64_t from, int64_t to, int64_t count) {
  const int64_t size = pool.block_elements();
  const int64_t head_dim = pool.head_dim;
  for (int64_t row = 0; row < pool.kv_heads * head_dim; ++row) {
    std::copy_n(pool.k + from * size + row * kKvBlock, count, pool.k + to * size + row * kKvBlock);
  }
  for (int64_t head = 0; head < pool.kv_heads; ++head) {
    const int64_t slab = head * kKvBlock * head_dim;
    std::copy_n(pool.v + from * size + slab, count * head_dim, pool.v + to * size + slab);
  }
}

}  // namespace orrery::kernels
#endif
