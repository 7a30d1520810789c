// Keys and values into the blocks of the KV cache. The layouts: kv_layout.cuh.
#include "kernels/cuda/kv_pool.h"

#include "kernels/cuda/kv_layout.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rotation.cuh"

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

/// Keys or values of a batch, [rows, kv_heads * head_dim].
template <class T>
struct KvRows {
  const T* data;
  int64_t stride, head_dim;
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

/// A block of threads writes a row's keys (kKeys) or values to its place.
template <bool kKeys>
__device__ void put_row(const KvBlocks& pool, const RowPlace& place, const KvRows<float>& from,
                        int64_t row) {
  const float* const at = from.data + row * from.stride;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * pool.head_dim; i += kThreads) {
    const int64_t head = i / pool.head_dim, d = i % pool.head_dim;
    if constexpr (kKeys) {
      pool.key_tile(place.block, head)[pool.key_index(place.slot, d)] = at[i];
    } else {
      pool.value_tile(place.block, head)[place.slot * pool.head_dim + d] = at[i];
    }
  }
}
/// In bf16 16 bytes at a time, the zeros behind head_dim as well.
template <bool kKeys>
__device__ void put_row(const KvBf16Blocks& pool, const RowPlace& place, const KvRows<Bf16>& from,
                        int64_t row) {
  const int64_t copies = pool.row / kKvBf16Copy;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * copies; i += kThreads) {
    const int64_t head = i / copies, copy = i % copies, d = copy * kKvBf16Copy;
    Bf16* const tile =
        kKeys ? pool.key_tile(place.block, head) : pool.value_tile(place.block, head);
    copies_at(tile)[place.slot * copies + copy] = load_copy(
        from.data + row * from.stride + head * from.head_dim + d, from.head_dim - d, from.aligned);
  }
}

/// Zeroes what a key has behind head_dim.
__device__ void pad_key(const KvBlocks& /*pool*/, const RowPlace& /*place*/, int64_t /*head_dim*/) {
}
__device__ void pad_key(const KvBf16Blocks& pool, const RowPlace& place, int64_t head_dim) {
  const int64_t padding = pool.row - head_dim;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * padding; i += kThreads) {
    const int64_t d = head_dim + i % padding;
    pool.key_tile(place.block, i / padding)[pool.key_index(place.slot, d)] = Bf16{};
  }
}

/// Zeroes the slots behind the row's, where they are the block of threads' to zero.
__device__ void clear_rest(const KvBlocks& /*pool*/, const RowPlace& /*place*/) {}
__device__ void clear_rest(const KvBf16Blocks& pool, const RowPlace& place) {
  if (!place.clears_rest) return;
  const int64_t copies = pool.row / kKvBf16Copy;
  const int64_t first = (place.slot + 1) * copies, rest = kKvBlock * copies - first;
  for (int64_t i = threadIdx.x; i < pool.kv_heads * rest; i += kThreads) {
    const int64_t head = i / rest, copy = first + i % rest;
    copies_at(pool.key_tile(place.block, head))[copy] = uint4{};
    copies_at(pool.value_tile(place.block, head))[copy] = uint4{};
  }
}

/// A block of threads writes a row of the batch, if it belongs to a segment.
template <class Blocks, class T>
__global__ void __launch_bounds__(kThreads)
    kv_write_kernel(Blocks pool, KvRows<T> k, KvRows<T> v, Vec<const PlannedSegment> segments,
                    const int32_t* tables) {
  __shared__ RowPlace place;
  const int64_t row = blockIdx.x;
  find_row(place, row, segments, tables);
  if (place.block < 0) return;
  put_row<true>(pool, place, k, row);
  put_row<false>(pool, place, v, row);
  clear_rest(pool, place);
}

/// Two blocks of threads have a row: the second rotates its queries, the first its
/// keys, which it writes as it goes, and its values.
template <class Blocks, class T, int kElements>
__global__ void __launch_bounds__(kThreads)
    rope_kv_write_kernel(Blocks pool, Mat<T> qk, KvRows<T> v, int64_t heads, Rotation rotation,
                         Vec<const PlannedSegment> segments, const int32_t* tables) {
  __shared__ RowPlace place;
  const int64_t row = blockIdx.x, position = rotation.positions.data[row];
  const int64_t half = rotation.cos.cols;
  T* const queries = qk.data + row * qk.stride;
  if (blockIdx.y == 1) {
    for (int64_t i = threadIdx.x * kElements; i < heads * half; i += kThreads * kElements)
      rotate<false, kElements>(queries + i / half * 2 * half, i % half, rotation, position);
    return;
  }
  T* const keys = queries + heads * 2 * half;
  find_row(place, row, segments, tables);
  const bool there = place.block >= 0;
  for (int64_t i = threadIdx.x * kElements; i < pool.kv_heads * half; i += kThreads * kElements) {
    const int64_t head = i / half, d = i % half;
    const auto key = rotate<false, kElements>(keys + head * 2 * half, d, rotation, position);
    if (!there) continue;
    auto* const tile = pool.key_tile(place.block, head);
    store_packet(tile + pool.key_index(place.slot, d), key.low);
    store_packet(tile + pool.key_index(place.slot, half + d), key.high);
  }
  if (!there) return;
  pad_key(pool, place, 2 * half);
  put_row<false>(pool, place, v, row);
  clear_rest(pool, place);
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

template <class T>
KvRows<T> kv_rows(const ConstActMat& mat, int64_t head_dim) {
  const auto rows = mat.as<const T>();
  const bool aligned =
      is_aligned_to_16(rows.data) && rows.stride % kKvBf16Copy == 0 && head_dim % kKvBf16Copy == 0;
  return {rows.data, rows.stride, head_dim, aligned};
}

template <class T, class Blocks>
void launch_write(const Context& ctx, const Blocks& pool, const KvWrite& op) {
  const int64_t head_dim = op.pool.head_dim;
  kv_write_kernel<Blocks, T><<<static_cast<unsigned>(op.plan.rows), kThreads, 0, stream_of(ctx)>>>(
      pool, kv_rows<T>(op.k, head_dim), kv_rows<T>(op.v, head_dim), op.plan.segments,
      op.plan.tables.data);
  check_launch("kv_write");
}

template <class T, int kElements, class Blocks>
void launch_rope_write(const Context& ctx, const Blocks& pool, const RopeKvWrite& op) {
  const AttentionShape& shape = op.plan.shape;
  const int64_t values = (shape.heads + shape.kv_heads) * shape.head_dim;
  const dim3 grid(static_cast<unsigned>(op.plan.rows), 2);
  rope_kv_write_kernel<Blocks, T, kElements><<<grid, kThreads, 0, stream_of(ctx)>>>(
      pool, op.qkv.as<T>(), kv_rows<T>(op.qkv.col_range(values, op.qkv.cols), shape.head_dim),
      shape.heads, op.rotation, op.plan.segments, op.plan.tables.data);
  check_launch("rope_kv_write");
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
  op.pool.dtype == DType::kBF16 ? launch_write<Bf16>(ctx, bf16_blocks_of(op.pool), op)
                                : launch_write<float>(ctx, blocks_of(op.pool), op);
}

void rope_kv_write(const Context& ctx, const RopeKvWrite& op) {
  if (op.plan.rows == 0) return;
  if (op.pool.dtype != DType::kBF16)
    return launch_rope_write<float, 1>(ctx, blocks_of(op.pool), op);
  const KvBf16Blocks pool = bf16_blocks_of(op.pool);
  rotates_in_packets(op.qkv, op.rotation) ? launch_rope_write<Bf16, kPacket>(ctx, pool, op)
                                          : launch_rope_write<Bf16, 1>(ctx, pool, op);
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
