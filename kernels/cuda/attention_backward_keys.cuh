// dk and dv: a block owns a tile of a segment's keys and walks over the queries that
// see them, in the contract's order: the segment's own, then those of its descendants.
// Two of its warps sum dv, two dk; a thread has eight keys and some columns.
#pragma once

#include "kernels/cuda/attention_backward_tile.cuh"

namespace orrery::kernels::cuda {

__device__ inline bool descends(Vec<const AttentionSegment> segments, int64_t segment,
                                int64_t ancestor) {
  while (segment > ancestor) segment = segments.data[segment].parent;
  return segment == ancestor;
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    attention_backward_keys_kernel(BackwardOp op) {
  constexpr int kKeys = Tile::kKeys, kLd = Tile::kLd, kEach = Tile::kEach;
  constexpr int kOwnKeys = kKeys / 4, kColumns = Tile::kDims / 16;  // of a thread's sums
  extern __shared__ __align__(16) float backward_memory[];
  __shared__ float shared_lse[Tile::kQueries], shared_delta[Tile::kQueries];
  float* const shared_q = backward_memory;
  float* const shared_dout = shared_q + Tile::kQueryRows;
  float* const shared_k = shared_dout + Tile::kQueryRows;
  float* const shared_v = shared_k + Tile::kKeyRows;
  float* const shared_p = shared_v + Tile::kKeyRows;
  float* const shared_ds = shared_p + Tile::kQueries * Tile::kLdKeys;
  const int thread = threadIdx.x, warp = thread / kWarp, x = thread % 8, y = thread % kWarp / 8;

  const int64_t kv_head = blockIdx.y;
  // A segment's first keys have the most queries. Every other head begins at the other
  // end, so that the blocks that are there at once have about the same work.
  const int64_t index =
      kv_head % 2 == 0 ? int64_t{blockIdx.x} : int64_t{gridDim.x} - 1 - int64_t{blockIdx.x};
  const auto items_of = [&](int64_t s) { return ceil_div(op.segments.data[s].rows, kKeys); };
  const Item item = find_item(op.segments.size, items_of, index);
  if (item.segment < 0) return;
  const AttentionSegment own = op.segments.data[item.segment];
  const int group = op.group, head_dim = op.head_dim;
  const int first_row = static_cast<int>(item.index) * kKeys;
  const int keys = min(kKeys, static_cast<int>(own.rows) - first_row);
  const int slices = (head_dim + Tile::kDims - 1) / Tile::kDims;
  const int own_slice = blockIdx.z;
  const auto columns_of = [&](int slice) {
    return min(Tile::kDims, head_dim - slice * Tile::kDims);
  };

  const auto fetch_keys = [&](int slice) {
    const auto row_of = [&](Mat<const float> m) {
      return [&, m](int i) {
        return m.data + (own.row_begin + first_row + min(i, keys - 1)) * m.stride +
               kv_head * head_dim + slice * Tile::kDims;
      };
    };
    fetch_rows<Tile, kKeys>(shared_k, row_of(op.k), columns_of(slice), 0.0f, op.quads);
    fetch_rows<Tile, kKeys>(shared_v, row_of(op.v), columns_of(slice), 0.0f, op.quads);
  };
  const auto fetch_queries = [&](const QueryRun& run, int slice) {
    const auto row_of = [&](Mat<const float> m) {
      return [&, m](int i) { return run.at(m, run.query(i), head_dim) + slice * Tile::kDims; };
    };
    fetch_rows<Tile, Tile::kQueries>(shared_q, row_of(op.q), columns_of(slice), -0.0f, op.quads);
    fetch_rows<Tile, Tile::kQueries>(shared_dout, row_of(op.dout), columns_of(slice), -0.0f,
                                     op.quads);
  };

  // This thread's sums: dv or dk of the keys own_key + i, columns column + 32 n + e.
  const bool sums_dk = warp >= 2;
  const int own_key = y * kOwnKeys, column = warp % 2 * (Tile::kDims / 2) + x * 4;
  float sums[kOwnKeys][kColumns];
#pragma unroll
  for (int i = 0; i < kOwnKeys; ++i) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) sums[i][n] = 0.0f;
  }

  // Queries [begin, ...) of a segment.
  const auto visit = [&](int64_t reader, int begin) {
    const AttentionSegment segment = op.segments.data[reader];
    const bool is_own = reader == item.segment;
    const int queries = static_cast<int>(segment.rows) * group;
    for (; begin < queries; begin += Tile::kQueries) {
      const QueryRun run{segment.row_begin, kv_head * group, group, begin,
                         min(queries, begin + Tile::kQueries)};
      const int count = run.end - begin;
      TileScores<Tile> s, dp;
      clear<Tile>(s);
      clear<Tile>(dp);
      for (int slice = 0; slice < slices; ++slice) {
        __syncthreads();  // nobody needs the rows before
        fetch_queries(run, slice);
        if (slices > 1) fetch_keys(slice);
        if (slice == 0 && thread < Tile::kQueries) {
          const int f = run.query(thread);
          shared_lse[thread] = op.lse.data[run.row(f) * op.lse.stride + run.head(f)];
          shared_delta[thread] = *run.at(op.dq, f, head_dim);
        }
        wait_for_copies();
        __syncthreads();
        const int columns = padded_columns(columns_of(slice));
        const int first = (warp * Tile::kWarpQueries + y) * kLd;
        add_products<Tile>(shared_q + first, shared_k + x * kLd, columns, s);
        add_products<Tile>(shared_dout + first, shared_v + x * kLd, columns, dp);
      }
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const int local = warp * Tile::kWarpQueries + y + 4 * i;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          weigh(op.scale, shared_lse[local], shared_delta[local], s[i][k], dp[i][k]);
          shared_p[local * Tile::kLdKeys + x + 8 * k] = s[i][k];
          shared_ds[local * Tile::kLdKeys + x + 8 * k] = dp[i][k];
        }
      }
      if (own_slice != slices - 1) {
        __syncthreads();
        fetch_queries(run, own_slice);
        wait_for_copies();
      }
      __syncthreads();
      const float* weights = (sums_dk ? shared_ds : shared_p) + own_key;
      const float* rows = (sums_dk ? shared_q : shared_dout) + column;
      // The first of the queries that sees key i.
      const auto seen_from = [&](int i) {
        return is_own ? (first_row + own_key + i) * group - run.begin : 0;
      };
      const auto add = [&](int t, auto check) {
        float w[kOwnKeys], r[kColumns];
#pragma unroll
        for (int i = 0; i < kOwnKeys; i += 4) {
          const float4 v = *reinterpret_cast<const float4*>(weights + t * Tile::kLdKeys + i);
          w[i] = v.x, w[i + 1] = v.y, w[i + 2] = v.z, w[i + 3] = v.w;
        }
#pragma unroll
        for (int n = 0; n < kColumns; n += 4) {
          const float4 v = *reinterpret_cast<const float4*>(rows + t * kLd + n * 8);
          r[n] = v.x, r[n + 1] = v.y, r[n + 2] = v.z, r[n + 3] = v.w;
        }
#pragma unroll
        for (int i = 0; i < kOwnKeys; ++i) {
          const bool seen = !check.value || t >= seen_from(i);
#pragma unroll
          for (int n = 0; n < kColumns; ++n) {
            const float next = __fmaf_rn(w[i], r[n], sums[i][n]);
            sums[i][n] = seen ? next : sums[i][n];
          }
        }
      };
      int t = 0;
      const int all_see = min(count, max(0, seen_from(kOwnKeys - 1)));
#pragma unroll 1
      for (; t < all_see; ++t) add(t, std::true_type());
#pragma unroll 4
      for (; t < count; ++t) add(t, std::false_type());
    }
  };

  if (slices == 1) fetch_keys(0);
  visit(item.segment, first_row * group);
  for (int64_t base = item.segment + 1; base < op.segments.size; base += kWarp) {
    const int64_t segment = base + thread % kWarp;
    const bool reads = segment < op.segments.size && op.segments.data[segment].rows > 0 &&
                       descends(op.segments, segment, item.segment);
    unsigned readers = __ballot_sync(kAllThreads, reads);
    for (; readers != 0; readers &= readers - 1)
      visit(base + __ffs(static_cast<int>(readers)) - 1, 0);
  }

  const Mat<float> to = sums_dk ? op.dk : op.dv;
#pragma unroll
  for (int i = 0; i < kOwnKeys; ++i) {
    if (own_key + i >= keys) continue;
    float* const out = to.data + (own.row_begin + first_row + own_key + i) * to.stride +
                       kv_head * head_dim + own_slice * Tile::kDims;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int d = column + n / 4 * 32 + n % 4;
      if (d < columns_of(own_slice)) out[d] = sums[i][n];
    }
  }
}

}  // namespace orrery::kernels::cuda
