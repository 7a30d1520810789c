// dq: a block owns a tile of a segment's queries and walks over the keys that they see,
// by position. A warp has queries of its own; a thread sums some columns of a few of
// them. Slice 0, whose column 0 overwrites delta, is launched last.
#pragma once

#include "kernels/cuda/attention_backward_tile.cuh"

namespace orrery::kernels::cuda {

/// The segment of a path that holds `position`, the path's last segment being given.
__device__ inline int64_t segment_at(Vec<const AttentionSegment> segments, int64_t last,
                                     int64_t position) {
  while (segments.data[last].position > position) last = segments.data[last].parent;
  return last;
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    attention_backward_queries_kernel(BackwardOp op, ItemRange range, int own_slice) {
  constexpr int kKeys = Tile::kKeys, kLd = Tile::kLd, kEach = Tile::kEach;
  constexpr int kColumns = Tile::kDims / 8;  // of a thread's sums
  extern __shared__ __align__(16) float backward_memory[];
  float* const shared_q = backward_memory;
  float* const shared_dout = shared_q + Tile::kQueryRows;
  float* const shared_k = shared_dout + Tile::kQueryRows;
  float* const shared_v = shared_k + Tile::kKeyRows;
  float* const shared_ds = shared_v + Tile::kKeyRows;  // [key][query]
  const int thread = threadIdx.x, warp = thread / kWarp, x = thread % 8, y = thread % kWarp / 8;

  const QueryItem item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const AttentionSegment own = op.segments.data[item.segment];
  const int64_t kv_head = blockIdx.y;
  const int group = op.group, head_dim = op.head_dim;
  const int begin = static_cast<int>(item.begin);
  const QueryRun run{own.row_begin, kv_head * group, group, begin,
                     min(static_cast<int>(own.rows) * group, begin + Tile::kQueries)};
  const int slices = (head_dim + Tile::kDims - 1) / Tile::kDims;
  const auto columns_of = [&](int slice) {
    return min(Tile::kDims, head_dim - slice * Tile::kDims);
  };

  const auto fetch_queries = [&](int slice) {
    const auto row_of = [&](Mat<const float> m) {
      return [&, m](int i) { return run.at(m, run.query(i), head_dim) + slice * Tile::kDims; };
    };
    fetch_rows<Tile, Tile::kQueries>(shared_q, row_of(op.q), columns_of(slice), -0.0f, op.quads);
    fetch_rows<Tile, Tile::kQueries>(shared_dout, row_of(op.dout), columns_of(slice), -0.0f,
                                     op.quads);
  };
  // Keys are [first, first + count) of the batch's rows.
  const auto fetch_keys = [&](float* to, Mat<const float> from, int64_t first, int count,
                              int slice) {
    const auto row_of = [&](int i) {
      return from.data + (first + min(i, count - 1)) * from.stride + kv_head * head_dim +
             slice * Tile::kDims;
    };
    fetch_rows<Tile, kKeys>(to, row_of, columns_of(slice), 0.0f, op.quads);
  };

  // Of the queries whose scores the thread holds.
  const int warp_first = warp * Tile::kWarpQueries;
  float lse[kEach], delta[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int f = run.query(warp_first + y + 4 * i);
    lse[i] = op.lse.data[run.row(f) * op.lse.stride + run.head(f)];
    delta[i] = *run.at(op.dq, f, head_dim);
  }
  // This thread's sums: dq of the queries own_query + i, columns x * 4 + 32 n + e.
  const int own_query = warp_first + y * kEach;
  float sums[kEach][kColumns];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) sums[i][n] = 0.0f;
  }

  if (slices == 1) fetch_queries(0);
  const int64_t last_position = own.position + (run.end - 1) / group;
  for (int64_t position = 0; position <= last_position;) {
    const int64_t source = segment_at(op.segments, item.segment, position);
    const AttentionSegment segment = op.segments.data[source];
    const int first_key = static_cast<int>(position - segment.position);
    const int count = min(kKeys, static_cast<int>(segment.rows) - first_key);
    const int64_t first = segment.row_begin + first_key;
    // Keys of the tile that a query sees.
    const auto visible = [&](int f) {
      return source == item.segment ? min(count, f / group + 1 - first_key) : count;
    };
    const bool needed = run.begin + warp_first < run.end &&
                        visible(run.query(warp_first + Tile::kWarpQueries - 1)) > 0;
    TileScores<Tile> s, dp;
    clear<Tile>(s);
    clear<Tile>(dp);
    for (int slice = 0; slice < slices; ++slice) {
      __syncthreads();  // nobody needs the rows before
      fetch_keys(shared_k, op.k, first, count, slice);
      fetch_keys(shared_v, op.v, first, count, slice);
      if (slices > 1) fetch_queries(slice);
      wait_for_copies();
      __syncthreads();
      if (!needed) continue;
      const int columns = padded_columns(columns_of(slice));
      const int row = (warp_first + y) * kLd;
      add_products<Tile>(shared_q + row, shared_k + x * kLd, columns, s);
      add_products<Tile>(shared_dout + row, shared_v + x * kLd, columns, dp);
    }
    if (needed) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          weigh(op.scale, lse[i], delta[i], s[i][k], dp[i][k]);
          shared_ds[(x + 8 * k) * Tile::kLdQueries + warp_first + y + 4 * i] = dp[i][k];
        }
      }
    }
    if (own_slice != slices - 1) {
      __syncthreads();
      fetch_keys(shared_k, op.k, first, count, own_slice);
      wait_for_copies();
      __syncthreads();
    } else {
      __syncwarp();
    }
    position += count;
    if (!needed) continue;
    int seen[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) seen[i] = visible(run.query(own_query + i));
    const float* const weights = shared_ds + own_query;
    const float* const rows = shared_k + x * 4;
    const auto add = [&](int j, auto check) {
      float w[kEach], r[kColumns];
      if constexpr (kEach == 4) {
        const float4 v = *reinterpret_cast<const float4*>(weights + j * Tile::kLdQueries);
        w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
      } else {
#pragma unroll
        for (int i = 0; i < kEach; ++i) w[i] = weights[j * Tile::kLdQueries + i];
      }
#pragma unroll
      for (int n = 0; n < kColumns; n += 4) {
        const float4 v = *reinterpret_cast<const float4*>(rows + j * kLd + n * 8);
        r[n] = v.x, r[n + 1] = v.y, r[n + 2] = v.z, r[n + 3] = v.w;
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
#pragma unroll
        for (int n = 0; n < kColumns; ++n) {
          const float next = __fmaf_rn(w[i], r[n], sums[i][n]);
          sums[i][n] = !check.value || j < seen[i] ? next : sums[i][n];
        }
      }
    };
    // Rows do not fall from query to query.
    int j = 0;
    const int shared = max(0, seen[0]), most = seen[kEach - 1];
#pragma unroll 4
    for (; j < shared; ++j) add(j, std::false_type());
#pragma unroll 1
    for (; j < most; ++j) add(j, std::true_type());
  }

#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int f = run.begin + own_query + i;
    if (f >= run.end) continue;
    float* const out = run.at(op.dq, f, head_dim) + own_slice * Tile::kDims;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int d = n / 4 * 32 + x * 4 + n % 4;
      if (d < columns_of(own_slice)) out[d] = sums[i][n];
    }
  }
}

}  // namespace orrery::kernels::cuda
