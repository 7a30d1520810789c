// The forward of attention for a few queries of a segment, such as a row that is being
// decoded: bound by the reads of keys and values, a batch of tiles at a time. A warp
// takes a tile of the batch, its threads the keys, for the scores and their weights;
// then a warp takes half of the queries and every other 32 columns for the outputs. The
// bits are those of kernels/attention.h, by the rules 2 to 4 of attention_tile.cuh; a
// thread holds the score of one key, so the steps 16 to 1 of a lanes sum are a
// butterfly.
#pragma once

#include <limits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/attention_items.cuh"

namespace orrery::kernels::cuda {

/// kDims: at least head_dim. kStaged: keys and values come through shared memory, the
/// next ones while the last are used; four must divide head_dim.
template <int kDims_, bool kStaged_>
struct AttentionRows {
  static constexpr int kDims = kDims_;
  static constexpr bool kStaged = kStaged_;
  static constexpr int kQueries = 8, kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kBatch = kStaged && kDims > 64 ? 2 : 4;  ///< tiles
  static constexpr int kKeys = int{kKvBlock};
  static constexpr int kShared = kDims * kQueries + (kStaged ? 2 * kBatch * kKeys * kDims : 0);
  static constexpr size_t kBytes = sizeof(float) * size_t{kShared};
};

template <class Rows>
__global__ void __launch_bounds__(Rows::kThreads)
    attention_rows_kernel(ForwardOp op, ItemRange range, bool item_is_segment) {
  constexpr int kQueries = Rows::kQueries, kBatch = Rows::kBatch, kKeys = Rows::kKeys;
  constexpr int kHalf = kQueries / 2, kSteps = (Rows::kDims + 63) / 64;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  extern __shared__ __align__(16) float rows_memory[];
  __shared__ __align__(16) float weights[kBatch][kKeys][kQueries];
  __shared__ float tops[kBatch][kQueries];  // of a tile alone
  __shared__ float factors[kBatch][kQueries], sums[kBatch][kQueries];
  __shared__ float running_m[kQueries], running_l[kQueries];
  float* const shared_q = rows_memory;  // [d][query]
  float* const shared_k = shared_q + Rows::kDims * kQueries;
  float* const shared_v = shared_k + kBatch * kKeys * Rows::kDims;
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;

  QueryItem item{int64_t{blockIdx.x}, 0};
  if (!item_is_segment) item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const PlannedSegment segment = op.segments.data[item.segment];
  const int64_t kv_head = blockIdx.y;
  const int head_dim = op.head_dim, group = op.group, tile_size = kKeys * head_dim;
  const int64_t first = item.begin, queries = segment.rows * group;
  const int count = static_cast<int>(min(int64_t{kQueries}, queries - first));
  const int32_t* const table = op.tables + segment.table;
  // Queries past the end repeat the last one.
  const auto query_of = [&](int i) { return first + min(i, count - 1); };
  const auto position_of = [&](int i) { return segment.position + query_of(i) / group; };
  const int tiles = static_cast<int>(position_of(kQueries - 1) / kKeys) + 1;

  const auto fetch = [&](float* to, bool keys, int begin) {
    if constexpr (Rows::kStaged) {
      for (int t = 0; t < min(kBatch, tiles - begin); ++t) {
        const int64_t block = table[begin + t];
        const float* const from =
            keys ? op.pool.key_tile(block, kv_head) : op.pool.value_tile(block, kv_head);
        for (int i = thread * 4; i < tile_size; i += Rows::kThreads * 4)
          copy_async<16>(to + t * tile_size + i, from + i);
      }
    }
  };
  fetch(shared_k, true, 0);
  for (int i = thread; i < kQueries * head_dim; i += Rows::kThreads) {
    const int d = i % head_dim, local = i / head_dim;
    const int64_t f = query_of(local);
    shared_q[d * kQueries + local] = op.q.data[(segment.row_begin + f / group) * op.q.stride +
                                               (kv_head * group + f % group) * head_dim + d];
  }
  if (thread < kQueries) {
    running_m[thread] = kMinusInfinity;
    running_l[thread] = 0.0f;
  }
  // This thread's outputs: queries half_first + i, columns column + 64 n.
  const int half_first = warp % 2 * kHalf, column = warp / 2 * kWarp + lane;
  float out[kHalf][kSteps];
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
#pragma unroll
    for (int n = 0; n < kSteps; ++n) out[i][n] = 0.0f;
  }

  for (int begin = 0; begin < tiles; begin += kBatch) {
    const int in_batch = min(kBatch, tiles - begin);
    wait_for_copies();
    __syncthreads();  // the keys are there, and nobody needs the values before
    fetch(shared_v, false, begin);
    const bool mine = warp < in_batch;
    const int tile = begin + warp;
    float s[kQueries];
    if (mine) {
#pragma unroll
      for (int i = 0; i < kQueries; ++i) s[i] = 0.0f;
      const float* keys =
          Rows::kStaged ? shared_k + warp * tile_size : op.pool.key_tile(table[tile], kv_head);
      keys += lane;
#pragma unroll 8
      for (int d = 0; d < head_dim; ++d) {
        const float key = keys[d * kKeys];
        const float4 low = *reinterpret_cast<const float4*>(shared_q + d * kQueries);
        const float4 high = *reinterpret_cast<const float4*>(shared_q + d * kQueries + 4);
        s[0] = __fmaf_rn(low.x, key, s[0]), s[1] = __fmaf_rn(low.y, key, s[1]);
        s[2] = __fmaf_rn(low.z, key, s[2]), s[3] = __fmaf_rn(low.w, key, s[3]);
        s[4] = __fmaf_rn(high.x, key, s[4]), s[5] = __fmaf_rn(high.y, key, s[5]);
        s[6] = __fmaf_rn(high.z, key, s[6]), s[7] = __fmaf_rn(high.w, key, s[7]);
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        s[i] = __fmul_rn(s[i], op.scale);
        if (int64_t{tile} * kKeys + lane > position_of(i)) s[i] = kMinusInfinity;
        float top = s[i];
#pragma unroll
        for (int step = kWarp / 2; step > 0; step /= 2)
          top = fmaxf(top, __shfl_xor_sync(kAllThreads, top, step));
        if (lane == i) tops[warp][i] = top;
      }
    }
    __syncthreads();
    if (mine) {
      float m[kQueries];
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        float before = running_m[i];
        for (int t = 0; t < warp; ++t) before = fmaxf(before, tops[t][i]);
        m[i] = fmaxf(before, tops[warp][i]);
        if (lane == i) factors[warp][i] = tile == 0 ? 0.0f : exp_f32(__fsub_rn(before, m[i]));
      }
#pragma unroll
      for (int i = 0; i < kQueries; ++i) {
        s[i] = exp_f32(__fsub_rn(s[i], m[i]));
        const float sum = __fadd_rn(s[i], __shfl_xor_sync(kAllThreads, s[i], kSumLanes));
        const float all = sum16(sum);
        if (lane == i) sums[warp][i] = all;
      }
      float4* const to = reinterpret_cast<float4*>(weights[warp][lane]);
      to[0] = make_float4(s[0], s[1], s[2], s[3]);
      to[1] = make_float4(s[4], s[5], s[6], s[7]);
    }
    wait_for_copies();
    __syncthreads();  // the weights and values are there; nobody needs the keys any more
    if (begin + kBatch < tiles) fetch(shared_k, true, begin + kBatch);
    if (thread < kQueries) {
      float m = running_m[thread], l = running_l[thread];
      for (int t = 0; t < in_batch; ++t) {
        m = fmaxf(m, tops[t][thread]);
        l = __fmaf_rn(l, factors[t][thread], sums[t][thread]);
      }
      running_m[thread] = m;
      running_l[thread] = l;
    }
    for (int t = 0; t < in_batch; ++t) {
      const float* const values =
          Rows::kStaged ? shared_v + t * tile_size : op.pool.value_tile(table[begin + t], kv_head);
      const int64_t key0 = int64_t{begin + t} * kKeys;
      int visible[kHalf];
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        visible[i] = static_cast<int>(min(int64_t{kKeys}, position_of(half_first + i) + 1 - key0));
        const float c = factors[t][half_first + i];
#pragma unroll
        for (int n = 0; n < kSteps; ++n) out[i][n] = __fmul_rn(out[i][n], c);
      }
      // Positions do not fall from query to query.
      const bool whole = visible[0] == kKeys;
      const int most = visible[kHalf - 1];
      const auto add = [&](int j, auto check) {
        const float4 p4 = *reinterpret_cast<const float4*>(&weights[t][j][half_first]);
        const float p[kHalf] = {p4.x, p4.y, p4.z, p4.w};
#pragma unroll
        for (int n = 0; n < kSteps; ++n) {
          const float v = values[j * head_dim + min(column + 64 * n, head_dim - 1)];
#pragma unroll
          for (int i = 0; i < kHalf; ++i) {
            const float next = __fmaf_rn(p[i], v, out[i][n]);
            if (!check.value || j < visible[i]) out[i][n] = next;
          }
        }
      };
      if (whole) {
#pragma unroll 8
        for (int j = 0; j < kKeys; ++j) add(j, std::false_type());
      } else {
#pragma unroll 4
        for (int j = 0; j < most; ++j) add(j, std::true_type());
      }
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const int local = half_first + i;
    if (local >= count) continue;
    const int64_t f = first + local;
    const int64_t row = segment.row_begin + f / group, head = kv_head * group + f % group;
    const float l = running_l[local];
    if (op.lse.data != nullptr && column == 0)
      op.lse.data[row * op.lse.stride + head] = __fadd_rn(running_m[local], log_f32(l));
#pragma unroll
    for (int n = 0; n < kSteps; ++n) {
      const int d = column + 64 * n;
      if (d < head_dim)
        op.out.data[row * op.out.stride + head * head_dim + d] = __fdiv_rn(out[i][n], l);
    }
  }
}

}  // namespace orrery::kernels::cuda
