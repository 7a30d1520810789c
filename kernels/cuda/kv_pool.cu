// Keys and values into the blocks of the KV cache. The layout is the CPU's: keys
// [block][kv_head][head_dim][kKvBlock], then values
// [block][kv_head][kKvBlock][head_dim].
#include "kernels/cuda/kv_pool.h"

#include "kernels/cuda/kv_layout.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// A block of threads writes a row of the batch, if it belongs to a segment.
__global__ void __launch_bounds__(kThreads)
    kv_write_kernel(KvBlocks pool, Mat<const float> k, Mat<const float> v,
                    Vec<const PlannedSegment> segments, const int32_t* tables) {
  __shared__ int64_t block_of_row, slot_of_row;
  const int64_t row = blockIdx.x;
  if (threadIdx.x == 0) block_of_row = -1;
  __syncthreads();
  for (int64_t s = threadIdx.x; s < segments.size; s += kThreads) {
    const PlannedSegment segment = segments.data[s];
    const int64_t in_segment = row - segment.row_begin;
    if (in_segment < 0 || in_segment >= segment.rows) continue;
    const int64_t position = segment.position + in_segment;
    block_of_row = tables[segment.table + position / kKvBlock];
    slot_of_row = position % kKvBlock;
  }
  __syncthreads();
  if (block_of_row < 0) return;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * pool.head_dim; i += kThreads) {
    const int64_t head = i / pool.head_dim, d = i % pool.head_dim;
    pool.key_tile(block_of_row, head)[d * kKvBlock + slot_of_row] = k.data[row * k.stride + i];
    pool.value_tile(block_of_row, head)[slot_of_row * pool.head_dim + d] =
        v.data[row * v.stride + i];
  }
}

/// A thread copies its element of a block's keys, and of its values, for one copy after
/// the other; where the copy does not reach, it writes a zero if that is wanted.
struct CopyBlockElement {
  KvBlocks pool;
  Vec<const BlockCopy> copies;
  bool clear_rest;
  __device__ void operator()(int64_t i) const {
    const int64_t size = pool.block_elements();
    const int64_t key_slot = i % kKvBlock, value_slot = i / pool.head_dim % kKvBlock;
    for (int64_t c = 0; c < copies.size; ++c) {
      const BlockCopy copy = copies.data[c];
      move(pool.keys + i, copy, key_slot, size);
      move(pool.values + i, copy, value_slot, size);
    }
  }
  __device__ void move(float* at, const BlockCopy& copy, int64_t slot, int64_t size) const {
    if (slot < copy.count) {
      at[copy.to * size] = at[copy.from * size];
    } else if (clear_rest) {
      at[copy.to * size] = 0.0f;
    }
  }
};

}  // namespace

void kv_clear(const Context& ctx, const KvClear& op) {
  const KvBlocks pool = blocks_of(op.pool);
  const size_t bytes =
      static_cast<size_t>(2 * op.pool.blocks * pool.block_elements()) * sizeof(float);
  check_call("kv_clear", cudaMemsetAsync(op.pool.data, 0, bytes, stream_of(ctx)));
}

void kv_write(const Context& ctx, const KvWrite& op) {
  if (op.plan.rows == 0 || op.plan.segments.empty()) return;
  kv_write_kernel<<<static_cast<unsigned>(op.plan.rows), kThreads, 0, stream_of(ctx)>>>(
      blocks_of(op.pool), op.k.as<const float>(), op.v.as<const float>(), op.plan.segments,
      op.plan.tables.data);
  check_launch("kv_write");
}

void kv_copy(const Context& ctx, const KvCopy& op) {
  const KvBlocks pool = blocks_of(op.pool);
  for_each_element(ctx, "kv_copy", pool.block_elements(),
                   CopyBlockElement{pool, op.plan.copies, op.clear_rest});
}

}  // namespace orrery::kernels::cuda
