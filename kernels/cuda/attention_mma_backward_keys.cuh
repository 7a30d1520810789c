// dk and dv on tensor cores: a block owns 64 keys of a segment and walks over the
// queries that see them, in the contract's order: segments in list order, the heads of
// the group, rows. Keys are the rows of all its products. Of two warps with the same 16
// keys one computes scores, p and dv, the other dp, ds and dk; p goes from the first to
// the second through shared memory, not rounded.
#pragma once

#include "kernels/cuda/attention_backward_keys.cuh"
#include "kernels/cuda/attention_mma_backward.cuh"

namespace orrery::kernels::cuda {

/// kDims: columns of a slice.
template <int kDims_>
struct MmaKeysTile {
  static constexpr int kDims = kDims_, kLd = kDims + kMmaCopy;
  static constexpr int kKeys = 64, kQueries = 32, kKeyWarps = kKeys / 16;
  static constexpr int kThreads = 2 * kKeyWarps * kWarp;
  static constexpr int kScores = kQueries / 8, kColumns = kDims / 8;  // eights of a warp
  static constexpr int kKeyRows = kKeys * kLd, kQueryRows = kQueries * kLd;
  /// Queries and dout of two tiles, and p in f32.
  static constexpr size_t kBytes =
      sizeof(Bf16) * size_t{2 * kKeyRows + 4 * kQueryRows} + sizeof(float) * kKeys * kQueries;
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads) attention_mma_keys_kernel(MmaBackwardOp op) {
  constexpr int kKeys = Tile::kKeys, kQueries = Tile::kQueries, kScores = Tile::kScores;
  extern __shared__ __align__(16) Bf16 keys_memory[];
  __shared__ float shared_lse[2][Tile::kQueries], shared_delta[2][Tile::kQueries];
  Bf16* const shared_k = keys_memory;
  Bf16* const shared_v = shared_k + Tile::kKeyRows;
  Bf16* const shared_rows = shared_v + Tile::kKeyRows;  // [stage][q, dout]
  float4* const shared_p = reinterpret_cast<float4*>(shared_rows + 4 * Tile::kQueryRows);
  const int thread = threadIdx.x, warp = thread / kWarp, lane = thread % kWarp;

  const int64_t kv_head = blockIdx.y;
  // As in attention_backward_keys_kernel.
  const int64_t index =
      kv_head % 2 == 0 ? int64_t{blockIdx.x} : int64_t{gridDim.x} - 1 - int64_t{blockIdx.x};
  const auto items_of = [&](int64_t s) { return ceil_div(op.segments.data[s].rows, kKeys); };
  const Item item = find_item(op.segments.size, items_of, index);
  if (item.segment < 0) return;
  const AttentionSegment own = op.segments.data[item.segment];
  const int group = op.group, head_dim = op.head_dim;
  const int first_key = static_cast<int>(item.index) * kKeys;
  const int keys = min(kKeys, static_cast<int>(own.rows) - first_key);
  const int slices = (head_dim + Tile::kDims - 1) / Tile::kDims, own_slice = blockIdx.z;
  const auto columns_of = [&](int slice) {
    return min(Tile::kDims, head_dim - slice * Tile::kDims);
  };

  const auto fetch_keys = [&](int slice) {
    const auto fetch = [&](Bf16* to, Mat<const Bf16> from) {
      const Bf16* const first = from.data + (own.row_begin + first_key) * from.stride +
                                kv_head * head_dim + slice * Tile::kDims;
      fetch_bf16_rows<Tile, kKeys>(to, keys, columns_of(slice), op.aligned,
                                   [&](int i) { return first + i * from.stride; });
    };
    fetch(shared_k, op.k);
    fetch(shared_v, op.v);
  };
  // Rows [row, row + count) of a segment and head.
  const auto fetch_queries = [&](const QueryRun& run, int slice, int stage) {
    const int count = run.end - run.begin;
    const auto fetch = [&](Bf16* to, Mat<const Bf16> from) {
      const Bf16* const first = run.at(from, run.begin, head_dim) + slice * Tile::kDims;
      fetch_bf16_rows<Tile, kQueries>(to, count, columns_of(slice), op.aligned,
                                      [&](int i) { return first + i * from.stride; });
    };
    fetch(shared_rows + stage * 2 * Tile::kQueryRows, op.q);
    fetch(shared_rows + (stage * 2 + 1) * Tile::kQueryRows, op.dout);
    if (thread < kQueries) {
      const int query = run.query(thread);
      shared_lse[stage][thread] = op.lse.data[run.row(query) * op.lse.stride + run.head(query)];
      shared_delta[stage][thread] = kept_delta(op, run, query);
    }
  };

  const bool sums_dk = warp >= Tile::kKeyWarps;
  const int warp_key = warp % Tile::kKeyWarps * 16;
  float chain[Tile::kColumns][4], sums[Tile::kColumns][4];
  clear(sums);
  int turn = 0;

  // All queries of a segment.
  const auto visit = [&](int64_t reader) {
    const AttentionSegment segment = op.segments.data[reader];
    const bool is_own = reader == item.segment;
    const int rows = static_cast<int>(segment.rows), first_row = is_own ? first_key : 0;
    const int head_tiles = (rows - first_row + kQueries - 1) / kQueries;
    const int tiles = head_tiles * group;
    const auto run_of = [&](int tile) {
      const int row = first_row + tile % head_tiles * kQueries;
      return QueryRun{segment.row_begin, kv_head * group + tile / head_tiles, 1, row,
                      min(rows, row + kQueries)};
    };
    clear(chain);
    if (slices == 1) fetch_queries(run_of(0), 0, turn % 2);
    for (int tile = 0; tile < tiles; ++tile, ++turn) {
      const QueryRun run = run_of(tile);
      const int stage = slices == 1 ? turn % 2 : 0, count = run.end - run.begin;
      const Bf16* const shared_q = shared_rows + stage * 2 * Tile::kQueryRows;
      const Bf16* const shared_dout = shared_q + Tile::kQueryRows;
      // Scores, or dp: of the keys warp_key + lane / 4 and 8 further on.
      float s[kScores][4];
      clear(s);
      for (int slice = 0; slice < slices; ++slice) {
        if (slices > 1) {
          __syncthreads();  // nobody needs the rows before
          fetch_queries(run, slice, 0);
          fetch_keys(slice);
        }
        wait_for_copies();
        __syncthreads();  // the rows are there, and nobody needs those of the tile before
        if (slices == 1 && tile + 1 < tiles) fetch_queries(run_of(tile + 1), 0, (turn + 1) % 2);
        for (int inner = 0; inner < columns_of(slice); inner += 16) {
          add_row_products<Tile::kLd>(sums_dk ? shared_v : shared_k, warp_key,
                                      sums_dk ? shared_dout : shared_q, inner, lane, s);
        }
      }
      // Whether the key of sum e sees query n * 8 + e % 2 of those at 2 (lane % 4).
      const auto is_seen = [&](int n, int e) {
        const int query = n * 8 + lane % 4 * 2 + e % 2;
        const int key = first_key + warp_key + lane / 4 + e / 2 * 8;
        return query < count && (!is_own || run.begin + query >= key);
      };
      // Whether that is so of all of the warp's keys and all queries of a tile.
      const bool whole = count == kQueries && (!is_own || run.begin >= first_key + warp_key + 15);
      float4* const pairs = shared_p + warp % Tile::kKeyWarps * (kScores * kWarp) + lane;
      const auto weigh_scores = [&](auto masked) {
#pragma unroll
        for (int n = 0; n < kScores; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float lse = shared_lse[stage][n * 8 + lane % 4 * 2 + e % 2];
            s[n][e] = !masked.value || is_seen(n, e) ? weight_of(op, s[n][e], lse) : 0.0f;
          }
          pairs[n * kWarp] = make_float4(s[n][0], s[n][1], s[n][2], s[n][3]);
        }
      };
      if (!sums_dk) whole ? weigh_scores(std::false_type()) : weigh_scores(std::true_type());
      if (slices > 1 && own_slice != slices - 1) {
        __syncthreads();
        fetch_queries(run, own_slice, 0);
        wait_for_copies();
      }
      __syncthreads();  // p is there
      const auto weigh_gradients = [&](auto masked) {
#pragma unroll
        for (int n = 0; n < kScores; ++n) {
          const float4 p4 = pairs[n * kWarp];
          const float p[4] = {p4.x, p4.y, p4.z, p4.w};
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float delta = shared_delta[stage][n * 8 + lane % 4 * 2 + e % 2];
            const float ds = gradient_of(op, p[e], s[n][e], delta);
            s[n][e] = !masked.value || is_seen(n, e) ? ds : 0.0f;
          }
        }
      };
      if (sums_dk) whole ? weigh_gradients(std::false_type()) : weigh_gradients(std::true_type());
      add_weighted_rows<Tile::kLd>(s, sums_dk ? shared_q : shared_dout, columns_of(own_slice), lane,
                                   chain);
    }
#pragma unroll
    for (int n = 0; n < Tile::kColumns; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e)
        sums[n][e] = is_own ? chain[n][e] : __fadd_rn(sums[n][e], chain[n][e]);
    }
  };

  if (slices == 1) fetch_keys(0);
  // Its own segment is the first of those that see the keys.
  for (int64_t base = item.segment; base < op.segments.size; base += kWarp) {
    const int64_t segment = base + lane;
    const bool reads = segment < op.segments.size && op.segments.data[segment].rows > 0 &&
                       descends(op.segments, segment, item.segment);
    unsigned readers = __ballot_sync(kAllThreads, reads);
    for (; readers != 0; readers &= readers - 1) visit(base + __ffs(static_cast<int>(readers)) - 1);
  }

  const Mat<Bf16> to = sums_dk ? op.dk : op.dv;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int key = warp_key + lane / 4 + 8 * r;
    if (key >= keys) continue;
    Bf16* const row = to.data + (own.row_begin + first_key + key) * to.stride + kv_head * head_dim +
                      own_slice * Tile::kDims;
#pragma unroll
    for (int n = 0; n < Tile::kColumns; ++n) {
      store_bf16_pair(row, n * 8 + lane % 4 * 2, columns_of(own_slice), op.pairs, sums[n][2 * r],
                      sums[n][2 * r + 1]);
    }
  }
}

}  // namespace orrery::kernels::cuda
