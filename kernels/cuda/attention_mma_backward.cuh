// What the kernels of attention's backward on tensor cores share, in the class
// dot16-rz25. As in f32, one owns keys and sums dk and dv over queries, the other owns
// queries and sums dq over keys, and both compute the weights p and ds of a tile for
// themselves, so that each sum has one block that owns it. What holds, and gives the
// bits of docs/numerics.md:
//   1. Tiles of queries and of keys begin at multiples of 16 rows of their segment, and
//      hold rows of one segment, of queries also of one head. So their groups of 16 are
//      the contract's. Rows behind a segment's last one are zeros.
//   2. Weights are 0 where a query does not see a key, and in rows that are not there.
//   3. A head wider than a tile comes in slices: scores are chains over all of them,
//      and a block sums the columns of one.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_backward_tile.cuh"
#include "kernels/cuda/attention_mma.cuh"

namespace orrery::kernels::cuda {

/// A backward, as its kernels read it. Before dq is written, its first two columns of
/// each head hold the query's delta.
struct MmaBackwardOp {
  Mat<Bf16> dq, dk, dv;
  Mat<const Bf16> dout, out, q, k, v;
  Mat<const float> lse;
  Vec<const AttentionSegment> segments;
  int group = 0, head_dim = 0;
  float scale = 1.0f;
  float score_scale = 1.0f;  ///< k2 of the contract
  bool aligned = false;      ///< rows of q, dout, k and v, to 16 bytes
  bool pairs = false;        ///< pairs of dq, dk and dv
};

__device__ inline float f32_of(Bf16 value) { return __uint_as_float(uint32_t{value.bits} << 16); }

/// A query's delta waits where its dq will be. A head of one column has no room for it,
/// but a delta of one product.
__device__ inline void keep_delta(const MmaBackwardOp& op, const QueryRun& run, int query,
                                  float delta) {
  if (op.head_dim < 2) return;
  Bf16* const to = run.at(op.dq, query, op.head_dim);
  const uint32_t bits = __float_as_uint(delta);
  to[0].bits = static_cast<uint16_t>(bits & 0xffffu);
  to[1].bits = static_cast<uint16_t>(bits >> 16);
}
__device__ inline float kept_delta(const MmaBackwardOp& op, const QueryRun& run, int query) {
  if (op.head_dim < 2) {
    const float dout = f32_of(*run.at(op.dout, query, 1)), out = f32_of(*run.at(op.out, query, 1));
    return __fadd_rn(__fmul_rn(dout, out), 0.0f);
  }
  const Bf16* const from = run.at(op.dq, query, op.head_dim);
  return __uint_as_float(uint32_t{from[0].bits} | uint32_t{from[1].bits} << 16);
}

/// p of a chain over q k, not rounded.
__device__ inline float weight_of(const MmaBackwardOp& op, float score, float lse) {
  return exp2_f32(__fsub_rn(__fmul_rn(score, op.score_scale), lse));
}
/// ds of p and a chain over dout v.
__device__ inline float gradient_of(const MmaBackwardOp& op, float p, float dp, float delta) {
  return __fmul_rn(__fmul_rn(p, __fsub_rn(dp, delta)), op.scale);
}

/// Continues the chains over a slice of `columns` of a b: 16 rows of a from `row` on,
/// and the first 8 * kCount rows of b.
template <int kLd, int kCount>
__device__ inline void add_row_products(const Bf16* a, int row, const Bf16* b, int inner, int lane,
                                        float (&sums)[kCount][4]) {
  uint32_t rows[4];
  MmaRows<kLd>::load_a(rows, a, row, inner, lane);
#pragma unroll
  for (int n = 0; n < kCount; n += 2) {
    uint32_t first[2], second[2];
    MmaRows<kLd>::load_b(first, second, b, n * 8, inner, lane);
    mma_m16n8k16(sums[n], rows, first);
    mma_m16n8k16(sums[n + 1], rows, second);
  }
}

/// Continues the chains over the rows of b, 8 * kRows of them, of weights b: the first
/// `columns` columns.
template <int kLd, int kRows, int kCount>
__device__ inline void add_weighted_rows(const float (&weights)[kRows][4], const Bf16* b,
                                         int columns, int lane, float (&sums)[kCount][4]) {
#pragma unroll
  for (int step = 0; step < kRows / 2; ++step) {
    uint32_t a[4];
    to_fragment(a, weights[2 * step], weights[2 * step + 1]);
#pragma unroll
    for (int n = 0; n < kCount; n += 2) {
      if (n * 8 >= columns) continue;
      uint32_t first[2], second[2];
      MmaRows<kLd>::load_b_down(first, second, b, step * 16, n * 8, lane);
      mma_m16n8k16(sums[n], a, first);
      mma_m16n8k16(sums[n + 1], a, second);
    }
  }
}

}  // namespace orrery::kernels::cuda
