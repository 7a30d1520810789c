// Keys and values into the blocks of the KV cache. The layouts: kv_layout.cuh.
#include "kernels/cuda/kv_pool.h"

#include "kernels/cuda/kv_layout.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// Where a row of the batch goes.
struct RowPlace {
  int64_t block, slot;  ///< block: -1 of a row of no segment
  /// No row of the segment is in a later slot of the block, and one is in its first.
  bool clears_rest;
};

/// All threads of a block look for the row's segment. `place` is the block's.
__device__ void find_row(RowPlace& place, int64_t row, Vec<const PlannedSegment> segments,
                         const int32_t* tables) {
  if (threadIdx.x == 0) place.block = -1;
  __syncthreads();
  for (int64_t s = threadIdx.x; s < segments.size; s += kThreads) {
    const PlannedSegment segment = segments.data[s];
    const int64_t in_segment = row - segment.row_begin;
    if (in_segment < 0 || in_segment >= segment.rows) continue;
    const int64_t position = segment.position + in_segment, slot = position % kKvBlock;
    const bool is_last = slot == kKvBlock - 1 || in_segment == segment.rows - 1;
    place.block = tables[segment.table + position / kKvBlock];
    place.slot = slot;
    place.clears_rest = is_last && in_segment >= slot;
  }
  __syncthreads();
}

/// A block of threads writes a row of the batch, if it belongs to a segment.
__global__ void __launch_bounds__(kThreads)
    kv_write_kernel(KvBlocks pool, Mat<const float> k, Mat<const float> v,
                    Vec<const PlannedSegment> segments, const int32_t* tables) {
  __shared__ RowPlace place;
  const int64_t row = blockIdx.x;
  find_row(place, row, segments, tables);
  if (place.block < 0) return;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * pool.head_dim; i += kThreads) {
    const int64_t head = i / pool.head_dim, d = i % pool.head_dim;
    pool.key_tile(place.block, head)[d * kKvBlock + place.slot] = k.data[row * k.stride + i];
    pool.value_tile(place.block, head)[place.slot * pool.head_dim + d] = v.data[row * v.stride + i];
  }
}

/// Keys or values of a batch, [rows, kv_heads * head_dim].
struct HeadRows {
  const Bf16* data;
  int64_t stride;
  bool aligned;  ///< every head of every row, to 16 bytes
};

/// 16 bytes: elements [0, count) of `from`, and zeros behind them.
__device__ uint4 load_copy(const Bf16* from, int64_t count, bool aligned) {
  if (aligned && count >= kKvBf16Copy) return *reinterpret_cast<const uint4*>(from);
  uint32_t words[kKvBf16Copy / 2] = {};
#pragma unroll
  for (int e = 0; e < kKvBf16Copy; ++e) {
    if (e < count) words[e / 2] |= uint32_t{from[e].bits} << 16 * (e % 2);
  }
  return {words[0], words[1], words[2], words[3]};
}

__device__ uint4* copies_at(Bf16* to) { return reinterpret_cast<uint4*>(to); }

/// Likewise in bf16, 16 bytes at a time. A block of threads whose row ends what its
/// segment writes to a fresh block of slots zeroes the slots behind it.
__global__ void __launch_bounds__(kThreads)
    kv_write_bf16_kernel(KvBf16Blocks pool, int64_t head_dim, HeadRows k, HeadRows v,
                         Vec<const PlannedSegment> segments, const int32_t* tables) {
  __shared__ RowPlace place;
  const int64_t row = blockIdx.x, copies = pool.row / kKvBf16Copy;
  find_row(place, row, segments, tables);
  if (place.block < 0) return;
  const int64_t slot = place.slot;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * copies; i += kThreads) {
    const int64_t head = i / copies, copy = i % copies, d = copy * kKvBf16Copy;
    const auto load = [&](const HeadRows& from) {
      return load_copy(from.data + row * from.stride + head * head_dim + d, head_dim - d,
                       from.aligned);
    };
    copies_at(pool.key_tile(place.block, head))[slot * copies + copy] = load(k);
    copies_at(pool.value_tile(place.block, head))[slot * copies + copy] = load(v);
  }
  if (!place.clears_rest) return;
  const int64_t first = (slot + 1) * copies, rest = kKvBlock * copies - first;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * rest; i += kThreads) {
    const int64_t head = i / rest, copy = first + i % rest;
    copies_at(pool.key_tile(place.block, head))[copy] = uint4{};
    copies_at(pool.value_tile(place.block, head))[copy] = uint4{};
  }
}

/// A thread copies its element of a block's keys, and of its values, for one copy after
/// the other; where the copy does not reach, it writes a zero if that is wanted. An
/// element: 16 bytes of them in bf16.
template <class T>
struct CopyBlockElement {
  T *keys, *values;
  int64_t size;                  ///< elements of a block
  int64_t key_each, value_each;  ///< elements from one slot's to the next one's
  Vec<const BlockCopy> copies;
  bool clear_rest;
  __device__ void operator()(int64_t i) const {
    const int64_t key_slot = i / key_each % kKvBlock, value_slot = i / value_each % kKvBlock;
    for (int64_t c = 0; c < copies.size; ++c) {
      const BlockCopy copy = copies.data[c];
      move(keys + i, copy, key_slot);
      move(values + i, copy, value_slot);
    }
  }
  __device__ void move(T* at, const BlockCopy& copy, int64_t slot) const {
    if (slot < copy.count) {
      at[copy.to * size] = at[copy.from * size];
    } else if (clear_rest) {
      at[copy.to * size] = T{};
    }
  }
};

HeadRows head_rows(const ConstActMat& mat, int64_t head_dim) {
  const auto rows = mat.as<const Bf16>();
  const bool aligned = reinterpret_cast<uintptr_t>(rows.data) % sizeof(uint4) == 0 &&
                       rows.stride % kKvBf16Copy == 0 && head_dim % kKvBf16Copy == 0;
  return {rows.data, rows.stride, aligned};
}

}  // namespace

void kv_clear(const Context& ctx, const KvClear& op) {
  const KvPool& pool = op.pool;
  const size_t bytes = kv_pool_bytes(ctx, {pool.dtype, pool.blocks, pool.kv_heads, pool.head_dim});
  // All bits zero is the number zero in both types.
  check_call("kv_clear", cudaMemsetAsync(pool.data, 0, bytes, stream_of(ctx)));
}

void kv_write(const Context& ctx, const KvWrite& op) {
  if (op.plan.rows == 0 || op.plan.segments.empty()) return;
  const auto rows = static_cast<unsigned>(op.plan.rows);
  const Vec<const PlannedSegment> segments = op.plan.segments;
  const int32_t* const tables = op.plan.tables.data;
  if (op.pool.dtype == DType::kBF16) {
    const int64_t head_dim = op.pool.head_dim;
    kv_write_bf16_kernel<<<rows, kThreads, 0, stream_of(ctx)>>>(
        bf16_blocks_of(op.pool), head_dim, head_rows(op.k, head_dim), head_rows(op.v, head_dim),
        segments, tables);
  } else {
    kv_write_kernel<<<rows, kThreads, 0, stream_of(ctx)>>>(
        blocks_of(op.pool), op.k.as<const float>(), op.v.as<const float>(), segments, tables);
  }
  check_launch("kv_write");
}

void kv_copy(const Context& ctx, const KvCopy& op) {
  const Vec<const BlockCopy> copies = op.plan.copies;
  if (op.pool.dtype == DType::kBF16) {
    const KvBf16Blocks pool = bf16_blocks_of(op.pool);
    const int64_t each = pool.row / kKvBf16Copy, size = pool.block_elements() / kKvBf16Copy;
    for_each_element(ctx, "kv_copy", size,
                     CopyBlockElement<uint4>{reinterpret_cast<uint4*>(pool.keys),
                                             reinterpret_cast<uint4*>(pool.values), size, each,
                                             each, copies, op.clear_rest});
    return;
  }
  const KvBlocks pool = blocks_of(op.pool);
  for_each_element(ctx, "kv_copy", pool.block_elements(),
                   CopyBlockElement<float>{pool.keys, pool.values, pool.block_elements(), 1,
                                           pool.head_dim, copies, op.clear_rest});
}

}  // namespace orrery::kernels::cuda
