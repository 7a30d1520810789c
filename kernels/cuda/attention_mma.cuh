// What attention's kernels on tensor cores share (docs/numerics.md, "Dot16"). What
// holds in all of them:
//   1. A chain is one accumulator of one warp, a step for each group of 16 inner
//      indices in rising order.
//   2. Rows of a matrix lie in shared memory 16 bytes further apart than they are long,
//      so that the eight rows of a matrix that ldmatrix reads lie on different banks.
//      What a group lacks of a row is zeros, as are rows beyond the last one: steps and
//      columns that would be zeros alone are left out, which changes no bit.
//   3. Scores come out of mma as the fragments of C. Rounded in pairs they are the
//      fragments of A of the product that follows.
#pragma once

#include <numbers>

#include "core/dtype.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/attention_items.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/scalar_math.h"

namespace orrery::kernels::cuda {

/// Elements of a 16-byte copy, and what a row is longer by in shared memory.
inline constexpr int kMmaCopy = 8;

/// Two floats rounded to bf16, to nearest even, `low` in the lower half.
__device__ inline uint32_t bf16_pair(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return uint32_t{bf16_bits(low)} | uint32_t{bf16_bits(high)} << 16;
#endif
}

/// exp2_f32 of a number that is at most 0, or NaN, which needs no comparison of its
/// own: it stays NaN to the end.
__device__ inline float exp2_at_most_one(float x) {
  const float t = __fadd_rn(x, kRoundMagic);
  const float r = __fsub_rn(x, __fsub_rn(t, kRoundMagic));
  float p = exp2_poly(4);
#pragma unroll
  for (int i = 3; i >= 0; --i) p = __fmaf_rn(p, r, exp2_poly(i));
  p = __fmaf_rn(p, r, 1.0f);
  // Of kRoundMagic's own bits nothing is left.
  const uint32_t exponent = (__float_as_uint(t) << 23) + (127u << 23);
  return x < kExp2Underflow ? 0.0f : __fmul_rn(p, __uint_as_float(exponent));
}

/// Two fragments of C, of 16 rows and columns side by side, become one of A.
__device__ inline void to_fragment(uint32_t (&a)[4], const float (&left)[4],
                                   const float (&right)[4]) {
  a[0] = bf16_pair(left[0], left[1]);
  a[1] = bf16_pair(left[2], left[3]);
  a[2] = bf16_pair(right[0], right[1]);
  a[3] = bf16_pair(right[2], right[3]);
}

/// Fragments of rows `kLd` elements apart, for the calling lane.
template <int kLd>
struct MmaRows {
  /// A: rows [row, row + 16) at inner indices [inner, inner + 16) along them.
  static __device__ void load_a(uint32_t (&to)[4], const Bf16* rows, int row, int inner, int lane) {
    load_four_matrices<false>(to, rows + (row + lane % 16) * kLd + inner + lane / 16 * 8);
  }
  /// B of two products: columns [row, row + 16), whose inner indices lie along a row.
  static __device__ void load_b(uint32_t (&first)[2], uint32_t (&second)[2], const Bf16* rows,
                                int row, int inner, int lane) {
    uint32_t words[4];
    load_four_matrices<false>(
        words, rows + (row + lane / 16 * 8 + lane % 8) * kLd + inner + lane / 8 % 2 * 8);
    split(words, first, second);
  }
  /// B of two products: columns [column, column + 16), whose inner indices are rows.
  static __device__ void load_b_down(uint32_t (&first)[2], uint32_t (&second)[2], const Bf16* rows,
                                     int row, int column, int lane) {
    uint32_t words[4];
    load_four_matrices<true>(words, rows + (row + lane % 16) * kLd + column + lane / 16 * 8);
    split(words, first, second);
  }

 private:
  static __device__ void split(const uint32_t (&words)[4], uint32_t (&first)[2],
                               uint32_t (&second)[2]) {
    first[0] = words[0], first[1] = words[1];
    second[0] = words[2], second[1] = words[3];
  }
};

template <int kCount>
__device__ inline void clear(float (&sums)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[n][e] = 0.0f;
  }
}

/// Columns of whole groups.
__device__ inline int whole_groups(int columns) { return (columns + 15) / 16 * 16; }

/// Starts to copy eight elements to shared memory, of which `there` are read; zeros
/// stand for the others. Where rows are not aligned to 16 bytes they are there at
/// once.
__device__ inline void copy_eight(Bf16* to, const Bf16* from, int there, bool aligned) {
  there = min(there, kMmaCopy);
  if (aligned) {
    copy_async_or_zeros(to, from, there * static_cast<int>(sizeof(Bf16)));
    return;
  }
  uint32_t words[kMmaCopy / 2];
#pragma unroll
  for (int w = 0; w < kMmaCopy / 2; ++w) {
    words[w] = 2 * w < there ? from[2 * w].bits : 0u;
    if (2 * w + 1 < there) words[w] |= uint32_t{from[2 * w + 1].bits} << 16;
  }
  *reinterpret_cast<uint4*>(to) = uint4{words[0], words[1], words[2], words[3]};
}

/// Starts to copy `columns` elements each of row_of(0), ..., row_of(count - 1) to the
/// first of kRows rows, in whole groups; the other rows become zeros. All threads of
/// the block call it.
template <class Tile, int kRows, class RowOf>
__device__ inline void fetch_bf16_rows(Bf16* to, int count, int columns, bool aligned,
                                       const RowOf& row_of) {
  constexpr int kCopies = Tile::kDims / kMmaCopy, kStep = Tile::kThreads / kCopies;
  static_assert(kStep * kCopies == Tile::kThreads && kRows % kStep == 0);
  const int column = static_cast<int>(threadIdx.x) % kCopies * kMmaCopy;
  if (column >= whole_groups(columns)) return;
#pragma unroll 2
  for (int step = 0; step < kRows / kStep; ++step) {
    const int i = step * kStep + static_cast<int>(threadIdx.x) / kCopies;
    const int there = i < count ? max(columns - column, 0) : 0;
    const Bf16* const from = row_of(min(i, count - 1));
    copy_eight(to + i * Tile::kLd + column, there > 0 ? from + column : from, there, aligned);
  }
}

/// Writes two sums as bf16 to an even column and the one after, those that there are.
__device__ inline void store_bf16_pair(Bf16* row, int column, int columns, bool pairs, float first,
                                       float second) {
  const uint32_t words = bf16_pair(first, second);
  if (pairs && column + 2 <= columns) {
    *reinterpret_cast<uint32_t*>(row + column) = words;
    return;
  }
  if (column < columns) row[column].bits = static_cast<uint16_t>(words & 0xffffu);
  if (column + 1 < columns) row[column + 1].bits = static_cast<uint16_t>(words >> 16);
}

/// k2 of the contract: it takes the product of q and k to the exponent of 2.
inline float mma_score_scale(float scale) {
  return static_cast<float>(static_cast<double>(scale) * std::numbers::log2e);
}

/// Whether `elements` of a matrix side by side, in any of its heads, are aligned to as
/// many elements.
template <class T>
bool heads_aligned(Mat<T> m, int64_t head_dim, int64_t elements) {
  return head_dim % elements == 0 && m.stride % elements == 0 &&
         reinterpret_cast<uintptr_t>(m.data) % (elements * sizeof(T)) == 0;
}

}  // namespace orrery::kernels::cuda
