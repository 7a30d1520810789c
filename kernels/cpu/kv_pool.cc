// Keys and values into the blocks of the KV cache (kernels/cpu/kv_pool.h has the
// layout: keys transposed, values row by row).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/kv_pool.cc"
#include "kernels/cpu/kv_pool.h"

#include "core/parallel.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/targets.h"
// Once for each of the other targets.
#include "hwy/foreach_target.h"
#include "kernels/cpu/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void write_segment(const KvPool& pool, Heads<const float> k, Heads<const float> v,
                   const PlannedSegment& segment, const int32_t* table) {
  const int64_t head_dim = pool.head_dim;
  float* pool_k = keys(pool);
  float* pool_v = values(pool);
  int64_t row = 0;
  while (row < segment.rows) {
    const int64_t position = segment.position + row;
    const int64_t slot = position % kKvBlock;
    const int64_t count = std::min(kKvBlock - slot, segment.rows - row);
    const int64_t block = table[position / kKvBlock];
    for (int64_t head = 0; head < pool.kv_heads; ++head) {
      const int64_t slab = (block * pool.kv_heads + head) * head_dim * kKvBlock;
      const float* from[kKvBlock];
      for (int64_t i = 0; i < count; ++i) {
        const int64_t token = segment.row_begin + row + i;
        from[i] = at(k, token, head);
        std::copy_n(at(v, token, head), head_dim, pool_v + slab + (slot + i) * head_dim);
      }
      attention::transpose_rows(from, count, head_dim, pool_k + slab + slot, kKvBlock);
    }
    row += count;
  }
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {
namespace {

/// Elements of keys, and of values, that are worth a thread to write: each element of a
/// key goes to a cache line of its own, and most of those lie in memory.
constexpr int64_t kColdElements = 2048;

void copy_block(const KvPool& pool, const BlockCopy& copy) {
  if (copy.from == copy.to) return;
  const int64_t head_dim = pool.head_dim;
  const int64_t size = block_elements(pool.kv_heads, head_dim);
  const float* from = keys(pool) + copy.from * size;
  float* to = keys(pool) + copy.to * size;
  for (int64_t row = 0; row < pool.kv_heads * head_dim * kKvBlock; row += kKvBlock)
    std::copy_n(from + row, copy.count, to + row);
  from = values(pool) + copy.from * size;
  to = values(pool) + copy.to * size;
  for (int64_t head = 0; head < pool.kv_heads; ++head) {
    const int64_t slab = head * kKvBlock * head_dim;
    std::copy_n(from + slab, copy.count * head_dim, to + slab);
  }
}

}  // namespace

HWY_EXPORT(write_segment);

void kv_clear(const Context& ctx, const KvClear& op) {
  const KvPool& pool = op.pool;
  const int64_t size = 2 * pool.blocks * block_elements(pool.kv_heads, pool.head_dim);
  float* data = keys(pool);
  parallel_for(ctx, size, int64_t{1} << 16,
               [&](int64_t begin, int64_t end) { std::fill(data + begin, data + end, 0.0f); });
}

void kv_write(const Context& ctx, const KvWrite& op) {
  const AttentionShape& shape = op.plan.shape;
  const auto k = heads_of(op.k.as<const float>(), shape.kv_heads, shape.head_dim);
  const auto v = heads_of(op.v.as<const float>(), shape.kv_heads, shape.head_dim);
  const Span<const PlannedSegment> segments = host(op.plan.segments);
  const int32_t* tables = op.plan.tables.data;
  const int64_t per_row = shape.kv_heads * shape.head_dim;
  parallel_for(ctx, segments.size(), 1 + kColdElements / per_row, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const PlannedSegment& s = segments[i];
      HWY_DYNAMIC_DISPATCH(write_segment)(op.pool, k, v, s, tables + s.table);
    }
  });
}

void kv_copy(const Context& /*ctx*/, const KvCopy& op) {
  for (const BlockCopy& copy : host(op.plan.copies)) copy_block(op.pool, copy);
}

}  // namespace orrery::kernels::cpu
#endif
