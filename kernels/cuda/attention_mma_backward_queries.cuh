// dq on tensor cores: a block owns 64 queries of a segment and kv head, 16 a warp, and
// walks over the keys that they see, by position. Slice 0, whose first columns
// overwrite delta, is launched last.
#pragma once

#include "kernels/cuda/attention_backward_queries.cuh"
#include "kernels/cuda/attention_mma_backward.cuh"

namespace orrery::kernels::cuda {

/// kDims: columns of a slice.
template <int kDims_>
struct MmaQueriesTile {
  static constexpr int kDims = kDims_, kLd = kDims + kMmaCopy;
  static constexpr int kKeys = 32, kQueries = 64, kThreads = kQueries / 16 * kWarp;
  static constexpr int kScores = kKeys / 8, kColumns = kDims / 8;  // eights of a warp
  static constexpr int kKeyRows = kKeys * kLd, kQueryRows = kQueries * kLd;
  /// Keys and values of two tiles.
  static constexpr size_t kBytes = sizeof(Bf16) * size_t{2 * kQueryRows + 4 * kKeyRows};
};

/// Keys [first, first + count) of a segment, which begin at row `row` of the batch.
struct KeyRun {
  int64_t row = 0;
  int first = 0, count = 0;
  bool is_own = false;  ///< of the queries' segment
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_mma_queries_kernel(MmaBackwardOp op, ItemRange range, int own_slice) {
  constexpr int kKeys = Tile::kKeys, kQueries = Tile::kQueries, kScores = Tile::kScores;
  extern __shared__ __align__(16) Bf16 queries_memory[];
  Bf16* const shared_q = queries_memory;
  Bf16* const shared_dout = shared_q + Tile::kQueryRows;
  Bf16* const shared_rows = shared_dout + Tile::kQueryRows;  // [stage][k, v]
  const int thread = threadIdx.x, warp_row = thread / kWarp * 16, lane = thread % kWarp;

  const QueryItem item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const AttentionSegment own = op.segments.data[item.segment];
  const int64_t kv_head = blockIdx.y;
  const int group = op.group, head_dim = op.head_dim;
  const int begin = static_cast<int>(item.begin);
  const QueryRun run{own.row_begin, kv_head * group, group, begin,
                     min(static_cast<int>(own.rows) * group, begin + kQueries)};
  const int slices = (head_dim + Tile::kDims - 1) / Tile::kDims;
  const auto columns_of = [&](int slice) {
    return min(Tile::kDims, head_dim - slice * Tile::kDims);
  };

  const auto fetch_queries = [&](int slice) {
    const auto fetch = [&](Bf16* to, Mat<const Bf16> from) {
      fetch_bf16_rows<Tile, kQueries>(
          to, run.end - run.begin, columns_of(slice), op.aligned,
          [&](int i) { return run.at(from, run.begin + i, head_dim) + slice * Tile::kDims; });
    };
    fetch(shared_q, op.q);
    fetch(shared_dout, op.dout);
  };
  const auto fetch_keys = [&](const KeyRun& keys, int slice, int stage) {
    const auto fetch = [&](Bf16* to, Mat<const Bf16> from) {
      const Bf16* const first =
          from.data + keys.row * from.stride + kv_head * head_dim + slice * Tile::kDims;
      fetch_bf16_rows<Tile, kKeys>(to, keys.count, columns_of(slice), op.aligned,
                                   [&](int i) { return first + i * from.stride; });
    };
    fetch(shared_rows + stage * 2 * Tile::kKeyRows, op.k);
    fetch(shared_rows + (stage * 2 + 1) * Tile::kKeyRows, op.v);
  };
  // The keys from `position` of the path on.
  const auto keys_at = [&](int64_t position) {
    const int64_t source = segment_at(op.segments, item.segment, position);
    const AttentionSegment segment = op.segments.data[source];
    const int first = static_cast<int>(position - segment.position);
    return KeyRun{segment.row_begin + first, first,
                  min(kKeys, static_cast<int>(segment.rows) - first), source == item.segment};
  };

  // Of the thread's two queries.
  float lse[2], delta[2];
  int row[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = run.query(warp_row + lane / 4 + 8 * r);
    row[r] = query / group;
    lse[r] = op.lse.data[run.row(query) * op.lse.stride + run.head(query)];
    delta[r] = kept_delta(op, run, query);
  }
  const int first_row = run.query(warp_row) / group;
  const int last_row = run.query(warp_row + 15) / group;
  float sums[Tile::kColumns][4];
  clear(sums);

  const int64_t last_position = own.position + (run.end - 1) / group;
  KeyRun next = keys_at(0);
  if (slices == 1) {
    fetch_queries(0);
    fetch_keys(next, 0, 0);
  }
  int64_t position = 0;
  for (int turn = 0; position <= last_position; ++turn) {
    const KeyRun keys = next;
    position += keys.count;
    if (position <= last_position) next = keys_at(position);
    const bool needed = !keys.is_own || keys.first <= last_row;
    const int stage = slices == 1 ? turn % 2 : 0;
    const Bf16* const shared_k = shared_rows + stage * 2 * Tile::kKeyRows;
    const Bf16* const shared_v = shared_k + Tile::kKeyRows;
    float s[kScores][4], dp[kScores][4];
    clear(s);
    clear(dp);
    for (int slice = 0; slice < slices; ++slice) {
      if (slices > 1) {
        __syncthreads();  // nobody needs the rows before
        fetch_queries(slice);
        fetch_keys(keys, slice, 0);
      }
      wait_for_copies();
      __syncthreads();  // the keys are there, and nobody needs those of the tile before
      if (slices == 1 && position <= last_position) fetch_keys(next, 0, (turn + 1) % 2);
      if (!needed) continue;
      for (int inner = 0; inner < columns_of(slice); inner += 16) {
        add_row_products<Tile::kLd>(shared_q, warp_row, shared_k, inner, lane, s);
        add_row_products<Tile::kLd>(shared_dout, warp_row, shared_v, inner, lane, dp);
      }
    }
    if (slices > 1 && own_slice != slices - 1) {
      __syncthreads();
      fetch_keys(keys, own_slice, 0);
      wait_for_copies();
      __syncthreads();
    }
    if (!needed) continue;
    // Whether all of the warp's queries see all keys that a tile may have.
    const bool whole = keys.count == kKeys && (!keys.is_own || keys.first + kKeys <= first_row + 1);
    const auto weigh_scores = [&](auto masked) {
#pragma unroll
      for (int n = 0; n < kScores; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int key = n * 8 + lane % 4 * 2 + e % 2;
          const bool is_seen = key < keys.count && (!keys.is_own || keys.first + key <= row[e / 2]);
          const float p = weight_of(op, s[n][e], lse[e / 2]);
          const float ds = gradient_of(op, p, dp[n][e], delta[e / 2]);
          s[n][e] = !masked.value || is_seen ? ds : 0.0f;
        }
      }
    };
    whole ? weigh_scores(std::false_type()) : weigh_scores(std::true_type());
    add_weighted_rows<Tile::kLd>(s, shared_k, columns_of(own_slice), lane, sums);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = run.begin + warp_row + lane / 4 + 8 * r;
    if (query >= run.end) continue;
    Bf16* const to = run.at(op.dq, query, head_dim) + own_slice * Tile::kDims;
#pragma unroll
    for (int n = 0; n < Tile::kColumns; ++n) {
      store_bf16_pair(to, n * 8 + lane % 4 * 2, columns_of(own_slice), op.pairs, sums[n][2 * r],
                      sums[n][2 * r + 1]);
    }
  }
}

}  // namespace orrery::kernels::cuda
