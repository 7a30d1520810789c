// The forward of attention for many queries of a segment. A block of threads walks over
// the tiles of keys with its queries; each warp has queries of its own. What holds, and
// gives the bits of kernels/attention.h:
//   1. Thread (y, x) of a warp, y < 4, x < 8, holds the scores of its queries and the
//      keys x, x + 8, x + 16, x + 24, each a chain over d by one fma a step. So the
//      first two steps of a lanes sum are its own, and the steps 4, 2, 1 are a
//      butterfly.
//   2. It then holds columns of the outputs of the same queries: chains over keys.
//   3. A query that sees no key of a tile, but shares its warp with one that does, has
//      p = 0 for all keys and c = 1, which changes nothing.
//   4. The value of a key that a query does not see enters no sum: fma(0, v, o) is not
//      o for o = -0 and where v is memory that nobody wrote.
// Keys and values of a tile lie in shared memory. The next keys are on their way while
// the outputs are summed, the values while the scores are.
#pragma once

#include <limits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/attention_items.cuh"

namespace orrery::kernels::cuda {

/// kDims: at least head_dim, which four divides. kQueries: of a thread.
template <int kDims_, int kQueries_, int kWarps_>
struct AttentionTile {
  static constexpr int kDims = kDims_, kQueries = kQueries_, kWarps = kWarps_;
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kWarpQueries = 4 * kQueries;
  static constexpr int kBlockQueries = kWarps * kWarpQueries;
  static constexpr int kKeys = int{kKvBlock};
  static constexpr int kLdQ = kBlockQueries + 4, kLdP = kWarpQueries + 4;
  /// Floats of shared memory. A thread may read values up to kDims beyond the last
  /// key's.
  static constexpr int kSharedQ = kDims * kLdQ, kSharedK = kDims * kKeys,
                       kSharedV = kDims * (kKeys + 1), kSharedP = kWarps * kKeys * kLdP;
  static constexpr size_t kBytes =
      sizeof(float) * size_t{kSharedQ + kSharedK + kSharedV + kSharedP};
};

template <int kCount>
__device__ inline void read_quads(const float* from, int step, float (&to)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + i / 4 * step);
    to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_tile_kernel(ForwardOp op, ItemRange range) {
  constexpr int kQueries = Tile::kQueries, kKeys = Tile::kKeys, kColumns = Tile::kDims / 8;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  extern __shared__ __align__(16) float tile_memory[];
  float* const shared_q = tile_memory;                // [d][query]
  float* const shared_k = shared_q + Tile::kSharedQ;  // [d][key], keys in the order of (1)
  float* const shared_v = shared_k + Tile::kSharedK;  // [key][d]
  const int thread = threadIdx.x, warp = thread / kWarp, x = thread % 8, y = thread % kWarp / 8;
  // [key][query], of this warp
  float* const shared_p = shared_v + Tile::kSharedV + warp * (kKeys * Tile::kLdP);

  const QueryItem item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const PlannedSegment segment = op.segments.data[item.segment];
  const int64_t kv_head = blockIdx.y;
  const int head_dim = op.head_dim, group = op.group;
  const int first = static_cast<int>(item.begin);
  const int queries = static_cast<int>(segment.rows) * group;
  const int end = min(queries, first + Tile::kBlockQueries);
  const int position = static_cast<int>(segment.position);
  const int32_t* const table = op.tables + segment.table;

  // Queries past the end repeat the last one.
  for (int i = thread; i < Tile::kBlockQueries * head_dim; i += Tile::kThreads) {
    const int d = i % head_dim, local = i / head_dim;
    const int f = min(first + local, end - 1);
    shared_q[d * Tile::kLdQ + local] = op.q.data[(segment.row_begin + f / group) * op.q.stride +
                                                 (kv_head * group + f % group) * head_dim + d];
  }
  const auto fetch_keys = [&](int tile) {
    const float* const from = op.pool.key_tile(table[tile], kv_head);
    for (int i = thread; i < kKeys * head_dim; i += Tile::kThreads) {
      const int key = i % kKeys;
      copy_async<4>(shared_k + i - key + key % 8 * 4 + key / 8, from + i);
    }
  };
  const auto fetch_values = [&](int tile) {
    const float* const from = op.pool.value_tile(table[tile], kv_head);
    for (int i = thread * 4; i < kKeys * head_dim; i += Tile::kThreads * 4)
      copy_async<16>(shared_v + i, from + i);
  };

  const int warp_first = first + warp * Tile::kWarpQueries;
  const int warp_last = min(end, warp_first + Tile::kWarpQueries) - 1;
  const auto position_of = [&](int f) { return position + min(f, end - 1) / group; };
  // Query i of the thread, within its warp.
  const auto local_of = [&](int i) { return i / 4 * 16 + y * 4 + i % 4; };
  const int tiles = position_of(end - 1) / kKeys + 1;
  const int warp_tiles = warp_first < end ? position_of(warp_last) / kKeys + 1 : 0;
  const int whole_tiles = warp_first < end ? (position_of(warp_first) + 1) / kKeys : 0;

  float out[kQueries][kColumns], m[kQueries], l[kQueries];
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    m[i] = kMinusInfinity;
    l[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) out[i][c] = 0.0f;
  }
  fetch_keys(0);
  for (int tile = 0; tile < tiles; ++tile) {
    wait_for_copies();
    __syncthreads();  // the keys are there, and nobody needs the values before
    fetch_values(tile);
    const bool needed = tile < warp_tiles, whole = tile < whole_tiles;
    if (needed) {
      float s[kQueries][4];
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) s[i][k] = 0.0f;
      }
      const float* q = shared_q + warp * Tile::kWarpQueries + y * 4;
      const float* keys = shared_k + x * 4;
#pragma unroll 8
      for (int d = 0; d < head_dim; ++d, q += Tile::kLdQ, keys += kKeys) {
        float a[kQueries], b[4];
        read_quads(q, 16, a);
        read_quads(keys, 0, b);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
#pragma unroll
          for (int k = 0; k < 4; ++k) s[i][k] = __fmaf_rn(a[i], b[k], s[i][k]);
        }
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) s[i][k] = __fmul_rn(s[i][k], op.scale);
        if (!whole) {
          const int visible = position_of(warp_first + local_of(i)) + 1 - tile * kKeys;
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            if (x + 8 * k >= visible) s[i][k] = kMinusInfinity;
          }
        }
        float top = fmaxf(fmaxf(s[i][0], s[i][1]), fmaxf(s[i][2], s[i][3]));
#pragma unroll
        for (int step = 4; step > 0; step /= 2)
          top = fmaxf(top, __shfl_xor_sync(kAllThreads, top, step));
        top = fmaxf(m[i], top);
        const float c = tile == 0 ? 0.0f : exp_f32(__fsub_rn(m[i], top));
        m[i] = top;
#pragma unroll
        for (int k = 0; k < 4; ++k) s[i][k] = exp_f32(__fsub_rn(s[i][k], top));
        float sum = __fadd_rn(__fadd_rn(s[i][0], s[i][2]), __fadd_rn(s[i][1], s[i][3]));
#pragma unroll
        for (int step = 4; step > 0; step /= 2)
          sum = __fadd_rn(sum, __shfl_xor_sync(kAllThreads, sum, step));
        l[i] = __fmaf_rn(l[i], c, sum);
#pragma unroll
        for (int n = 0; n < kColumns; ++n) out[i][n] = __fmul_rn(out[i][n], c);
      }
#pragma unroll
      for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < kQueries; i += 4) {
          *reinterpret_cast<float4*>(shared_p + (x + 8 * k) * Tile::kLdP + local_of(i)) =
              make_float4(s[i][k], s[i + 1][k], s[i + 2][k], s[i + 3][k]);
        }
      }
    }
    wait_for_copies();
    __syncthreads();  // the values are there, and nobody needs the keys any more
    if (tile + 1 < tiles) fetch_keys(tile + 1);
    if (!needed) continue;
    const float* p = shared_p + y * 4;
    const float* values = shared_v + x * 4;
    if (whole) {
#pragma unroll 4
      for (int j = 0; j < kKeys; ++j, p += Tile::kLdP, values += head_dim) {
        float a[kQueries], b[kColumns];
        read_quads(p, 16, a);
        read_quads(values, 32, b);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n) out[i][n] = __fmaf_rn(a[i], b[n], out[i][n]);
        }
      }
    } else {
      int visible[kQueries];
#pragma unroll
      for (int i = 0; i < kQueries; ++i)
        visible[i] = position_of(warp_first + local_of(i)) + 1 - tile * kKeys;
      const int most = min(kKeys, position_of(warp_last) + 1 - tile * kKeys);
#pragma unroll 1
      for (int j = 0; j < most; ++j, p += Tile::kLdP, values += head_dim) {
        float a[kQueries], b[kColumns];
        read_quads(p, 16, a);
        read_quads(values, 32, b);
#pragma unroll
        for (int i = 0; i < kQueries; ++i) {
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const float next = __fmaf_rn(a[i], b[n], out[i][n]);
            out[i][n] = j < visible[i] ? next : out[i][n];
          }
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kQueries; ++i) {
    const int f = warp_first + local_of(i);
    if (f >= end) continue;
    const int64_t row = segment.row_begin + f / group, head = kv_head * group + f % group;
    if (op.lse.data != nullptr && x == 0)
      op.lse.data[row * op.lse.stride + head] = __fadd_rn(m[i], log_f32(l[i]));
    float* const to = op.out.data + row * op.out.stride + head * head_dim;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int d = n / 4 * 32 + x * 4 + n % 4;
      if (d < head_dim) to[d] = __fdiv_rn(out[i][n], l[i]);
    }
  }
}

}  // namespace orrery::kernels::cuda
