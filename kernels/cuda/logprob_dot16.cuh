// The policy of the class dot16-rz25 (docs/numerics.md, "Sums that are no products"). A
// block of threads takes a row, a piece of 32 blocks of 128 tokens at a time. A warp
// has a block's largest z and the sums of its pairs of tokens; then a thread each adds
// up one of the four sums of a block; and one warp folds the piece's blocks into the
// row's sums. What that fold needs of the maxima does not depend on the sums, so that
// no more than two short chains are left to a single thread.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/logprob_row.cuh"

namespace orrery::kernels::cuda {

inline constexpr int kPolicyBlock = 128;                 // tokens
inline constexpr int kPieceBlocks = kWarp;               // one a lane, in the fold
inline constexpr int kPairs = kPolicyBlock / 2;          // of a block
inline constexpr int kPairStride = kPairs + 4;           // so that threads meet no bank twice
inline constexpr int kOwnTokens = kPolicyBlock / kWarp;  // of a thread, neighbours

/// Sums of pairs of neighbours of each block of a piece: of p and of p d.
using PolicyPairs = float[kPieceBlocks][2][kPairStride];

/// A block's tokens: `count` of them from `logits` on, or none. Returns the largest z.
template <bool kEntropy>
__device__ float policy_pairs(float (&pairs)[2][kPairStride], const float* logits, int64_t count,
                              float inv, bool quads) {
  const int lane = threadIdx.x % kWarp, first = lane * kOwnTokens;
  float z[kOwnTokens];
  if (quads && first + kOwnTokens <= count) {
    const float4 v = *reinterpret_cast<const float4*>(logits + first);
    z[0] = v.x, z[1] = v.y, z[2] = v.z, z[3] = v.w;
  } else {
#pragma unroll
    for (int e = 0; e < kOwnTokens; ++e)
      z[e] = first + e < count ? logits[first + e] : kMinusInfinity;
  }
  float most = kMinusInfinity;
#pragma unroll
  for (int e = 0; e < kOwnTokens; ++e) {
    z[e] = __fmul_rn(z[e], inv);
    most = larger(z[e], most);
  }
  for (int step = kWarp / 2; step > 0; step /= 2)
    most = larger(__shfl_xor_sync(kAllThreads, most, step), most);
  // Where all are -inf they must stay so: -inf less -inf would be NaN.
  const float m = most == kMinusInfinity ? 0.0f : most;
#pragma unroll
  for (int e = 0; e < kOwnTokens; e += 2) {
    float p[2], weighted[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float d = __fsub_rn(z[e + i], m);
      p[i] = exp_f32(d);
      weighted[i] = __fmul_rn(p[i], finite_below(d));
    }
    const int pair = (first + e) / 2;
    pairs[0][pair] = __fadd_rn(p[0], p[1]);
    if constexpr (kEntropy) pairs[1][pair] = __fadd_rn(weighted[0], weighted[1]);
  }
  return most;
}

/// s and t of a block.
struct PolicySums {
  float s, t;
};

/// Thread by thread the sums of a piece's blocks: eight threads have a block, the first
/// of which stores its sums.
template <bool kEntropy>
__device__ void policy_sums(PolicySums* sums, const PolicyPairs& pairs) {
  const int block = threadIdx.x / 8, kind = threadIdx.x / 4 % 2, q = threadIdx.x % 4;
  float sum = 0.0f;
  if (kEntropy || kind == 0) {
#pragma unroll
    for (int i = 0; i < kPairs / 4; ++i) sum = __fadd_rn(sum, pairs[block][kind][4 * i + q]);
  }
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllThreads, sum, 1));
  sum = __fadd_rn(sum, __shfl_xor_sync(kAllThreads, sum, 2));
  const float t = __shfl_xor_sync(kAllThreads, sum, 4);
  if (threadIdx.x % 8 == 0) sums[block] = {sum, t};
}

/// A block's part in the fold of the row's sums: s = c s + block_s, and t likewise from
/// c fma(e, s, t).
struct PolicyStep {
  float c, e, block_s, block_t;
};

__device__ inline float weighted_product(float c, float e, float s, float t) {
  // Far below the maximum the fma may be infinite, which times 0 would be NaN.
  return c == 0.0f ? 0.0f : __fmul_rn(c, __fmaf_rn(e, s, t));
}

/// Folds the piece's first `count` blocks into the row's sums, which thread 0 has, and
/// the row's maximum, which all threads of the warp have.
__device__ inline void fold_blocks(PolicyStep* steps, float block_max, const PolicySums& block,
                                   int count, float& m, PolicySums& sums) {
  const int lane = threadIdx.x % kWarp;
  // Where all z are -inf the sum is 0: the block is left out.
  const bool takes_part = lane < count && block.s != 0.0f;
  float after = takes_part ? block_max : kMinusInfinity;
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const float other = __shfl_up_sync(kAllThreads, after, step);
    if (lane >= step) after = larger(other, after);
  }
  after = larger(m, after);
  const float previous = __shfl_up_sync(kAllThreads, after, 1);
  const float before = lane == 0 ? m : previous;
  PolicyStep mine{1.0f, 0.0f, 0.0f, 0.0f};  // changes nothing: neither sum is ever -0
  if (takes_part) {
    mine.e = __fsub_rn(before, after);
    mine.c = exp_f32(mine.e);
    const float e_b = __fsub_rn(block_max, after), c_b = exp_f32(e_b);
    mine.block_s = __fmul_rn(c_b, block.s);
    mine.block_t = weighted_product(c_b, e_b, block.s, block.t);
  }
  steps[lane] = mine;
  m = __shfl_sync(kAllThreads, after, kWarp - 1);
  __syncwarp();
  if (lane == 0) {
    for (int b = 0; b < count; ++b) {
      const PolicyStep step = steps[b];
      sums.t = __fadd_rn(weighted_product(step.c, step.e, sums.s, sums.t), step.block_t);
      sums.s = __fadd_rn(__fmul_rn(step.c, sums.s), step.block_s);
    }
  }
  __syncwarp();
}

template <bool kEntropy>
__global__ void __launch_bounds__(kLogprobThreads)
    dot16_logprob_kernel(LogprobRows op, bool quads) {
  static_assert(kPieceBlocks * 8 == kLogprobThreads);
  __shared__ PolicyPairs pairs;
  __shared__ float maxima[2][kPieceBlocks];
  __shared__ PolicySums block_sums[kPieceBlocks];
  __shared__ PolicyStep steps[kPieceBlocks];
  constexpr int64_t kPieceTokens = kPieceBlocks * kPolicyBlock;
  const int64_t row = blockIdx.x, vocab = op.logits.cols;
  const float* const logits = op.logits.data + row * op.logits.stride;
  const float inv = op.inv_temperature[row];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float m = kMinusInfinity;
  PolicySums sums{0.0f, 0.0f};
  int now = 0;
  for (int64_t begin = 0; begin < vocab; begin += kPieceTokens, now ^= 1) {
    const int64_t left = vocab - begin;
    for (int b = warp; b < kPieceBlocks; b += kLogprobThreads / kWarp) {
      const float most = policy_pairs<kEntropy>(pairs[b], logits + begin + b * kPolicyBlock,
                                                left - b * kPolicyBlock, inv, quads);
      if (lane == 0) maxima[now][b] = most;
    }
    __syncthreads();
    policy_sums<kEntropy>(block_sums, pairs);
    // After this meeting the other warps go on to the next piece.
    __syncthreads();
    if (warp == 0) {
      const auto count = static_cast<int>(min(int64_t{kPieceBlocks}, ceil_div(left, kPolicyBlock)));
      fold_blocks(steps, maxima[now][lane], block_sums[lane], count, m, sums);
    }
  }
  if (threadIdx.x != 0) return;
  if (sums.s == 0.0f) sums.s = std::numeric_limits<float>::quiet_NaN();  // no token can be drawn
  // Which of two zeros is the largest z does not show.
  write_row(op, row, __fadd_rn(m, 0.0f), sums.s, sums.t);
}

inline void launch_dot16_logprob(const Context& ctx, const LogprobRows& rows) {
  const bool quads = rows.logits.stride % 4 == 0 && is_aligned_to_16(rows.logits.data);
  const auto blocks = static_cast<unsigned>(rows.logits.rows);
  if (rows.entropies != nullptr) {
    dot16_logprob_kernel<true><<<blocks, kLogprobThreads, 0, stream_of(ctx)>>>(rows, quads);
  } else {
    dot16_logprob_kernel<false><<<blocks, kLogprobThreads, 0, stream_of(ctx)>>>(rows, quads);
  }
  check_launch("logprob_forward");
}

}  // namespace orrery::kernels::cuda
