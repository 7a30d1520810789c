// What the two kernels of attention's backward share: one owns keys and sums dk and dv
// over queries, the other owns queries and sums dq over keys. Both compute the weights
// p and ds of a tile of queries and keys for themselves. What holds, and gives the bits
// of kernels/attention.h:
//   1. A block's rows of a matrix lie in shared memory as they are. Thread (y, x) of a
//      warp, y < 4, x < 8, holds the scores of the warp's queries y, y + 4, ... and of
//      the keys x, x + 8, x + 16, x + 24, each a chain over d by one fma a step.
//   2. Shared memory has columns up to a multiple of four: what lies beyond head_dim is
//      -0 in q and dout and +0 in k and v, so it adds -0, which changes no float.
//   3. Weights of queries that do not see a key, and of rows beyond a tile's, are
//      numbers without meaning. No sum visits them.
//   4. A head wider than a tile comes in slices, which are one chain; the block sums
//      the columns of one slice and leaves the others to other blocks.
#pragma once

#include <type_traits>

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/attention_items.cuh"

namespace orrery::kernels::cuda {

/// A backward, as its kernels read it. Before dq is written, its column 0 of each head
/// holds the query's delta.
struct BackwardOp {
  Mat<float> dq, dk, dv;
  Mat<const float> dout, out, q, k, v, lse;
  Vec<const AttentionSegment> segments;
  int group = 0, head_dim = 0;
  float scale = 1.0f;
  bool quads = false;  ///< groups of four columns of all heads are aligned
};

/// kDims: columns of a slice. kQueries: of a block.
template <int kDims_, int kQueries_, int kBlocks_>
struct BackwardTile {
  static constexpr int kDims = kDims_, kQueries = kQueries_, kBlocks = kBlocks_;
  static constexpr int kWarps = 4, kThreads = kWarps * kWarp;
  static constexpr int kKeys = int{kKvBlock};
  static constexpr int kWarpQueries = kQueries / kWarps, kEach = kWarpQueries / 4;
  static constexpr int kLd = kDims + 4;
  /// Floats of shared memory. Weights are [query][kLdKeys] for sums over queries, whose
  /// stores meet each bank once, and [key][kLdQueries] for sums over keys.
  static constexpr int kQueryRows = kQueries * kLd, kKeyRows = kKeys * kLd;
  static constexpr int kLdKeys = kKeys + 8, kLdQueries = kQueries + 4;
  static constexpr size_t kKeysBytes =
      sizeof(float) * size_t{2 * (kQueryRows + kKeyRows + kQueries * kLdKeys)};
  static constexpr size_t kQueriesBytes =
      sizeof(float) * size_t{2 * (kQueryRows + kKeyRows) + kKeys * kLdQueries};
};

/// Scores of a thread's queries and keys.
template <class Tile>
using TileScores = float[Tile::kEach][4];

__device__ inline int padded_columns(int columns) { return (columns + 3) / 4 * 4; }

/// Starts to copy `columns` floats from each of row_of(0), row_of(1), ...
template <class Tile, int kRows, class RowOf>
__device__ void fetch_rows(float* to, const RowOf& row_of, int columns, float fill, bool quads) {
  if (quads) {
    constexpr int kRowQuads = Tile::kDims / 4, kStep = Tile::kThreads / kRowQuads;
    const int column = static_cast<int>(threadIdx.x) % kRowQuads * 4;
    if (column >= columns) return;
    for (int i = static_cast<int>(threadIdx.x) / kRowQuads; i < kRows; i += kStep)
      copy_async<16>(to + i * Tile::kLd + column, row_of(i) + column);
  } else {
    const int padded = padded_columns(columns);
    for (int i = static_cast<int>(threadIdx.x); i < kRows * padded; i += Tile::kThreads) {
      const int row = i / padded, column = i % padded;
      to[row * Tile::kLd + column] = column < columns ? row_of(row)[column] : fill;
    }
  }
}

/// Continues the chains over d of a . b, where a and b are the thread's first rows.
template <class Tile>
__device__ void add_products(const float* a, const float* b, int columns,
                             TileScores<Tile>& scores) {
#pragma unroll 4
  for (int d = 0; d < columns; d += 4) {
    float x[Tile::kEach][4], y[4][4];
#pragma unroll
    for (int i = 0; i < Tile::kEach; ++i) {
      const float4 v = *reinterpret_cast<const float4*>(a + 4 * i * Tile::kLd + d);
      x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float4 v = *reinterpret_cast<const float4*>(b + 8 * k * Tile::kLd + d);
      y[k][0] = v.x, y[k][1] = v.y, y[k][2] = v.z, y[k][3] = v.w;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
#pragma unroll
      for (int i = 0; i < Tile::kEach; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) scores[i][k] = __fmaf_rn(x[i][e], y[k][e], scores[i][k]);
      }
    }
  }
}

template <class Tile>
__device__ void clear(TileScores<Tile>& scores) {
#pragma unroll
  for (int i = 0; i < Tile::kEach; ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k) scores[i][k] = 0.0f;
  }
}

/// From chains over d to p (in s) and ds (in dp) of one query and key.
__device__ inline void weigh(float scale, float lse, float delta, float& s, float& dp) {
  s = exp_f32(__fsub_rn(__fmul_rn(s, scale), lse));
  dp = __fmul_rn(__fmul_rn(s, __fsub_rn(dp, delta)), scale);
}

/// A run of queries of one segment and kv head.
struct QueryRun {
  int64_t row_begin = 0;   ///< of the segment
  int64_t head_begin = 0;  ///< of the kv head
  int group = 1;
  int begin = 0, end = 0;
  /// Query `local` of the run; past its end, the last one.
  __device__ int query(int local) const { return min(begin + local, end - 1); }
  __device__ int64_t row(int query) const { return row_begin + query / group; }
  __device__ int64_t head(int query) const { return head_begin + query % group; }
  template <class T>
  __device__ T* at(Mat<T> m, int query, int head_dim) const {
    return m.data + row(query) * m.stride + head(query) * head_dim;
  }
};

}  // namespace orrery::kernels::cuda
