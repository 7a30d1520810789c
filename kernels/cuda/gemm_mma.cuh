// Products of bf16 matrices on tensor cores, C [m, n] = A [m, k] B [k, n], by mma.sync:
// every element of C is a dot16 chain (docs/numerics.md, "Dot16"). What holds, whatever
// the tile:
//   1. One accumulator of one warp takes the groups of 16 inner indices in rising
//      order, a step each. No sum over k is shared.
//   2. Slices of A and B, kBk deep, come through shared memory by asynchronous copies,
//      kStages - 1 of them ahead of the one that is used. Rows of a slice lie 16 bytes
//      further apart than they are long, so that the eight rows of a matrix that
//      ldmatrix reads lie on different banks.
//   3. What a slice lacks of a group is zeros in both operands, which changes no bit;
//      nor does a group of zeros behind the last one. Rows and columns outside C are
//      zeros and dropped.
#pragma once

#include "core/dtype.h"
#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/gemm_mma_inner.cuh"
#include "kernels/cuda/gemm_mma_sums.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace orrery::kernels::cuda {

struct GemmOperand {
  const Bf16* data = nullptr;
  int64_t ld = 0;    ///< an int at most
  int64_t size = 0;  ///< rows of A or columns of B
};

/// Elements of a 16-byte copy.
inline constexpr int kGemmCopy = 8;

/// How the slices of an operand lie in shared memory, and the thread's share of the
/// copies that bring them. kInner: a row of the slice is a row of A or column of B;
/// kOuter: an inner index.
template <class Tile, OperandOrder kOrder, int kSize, bool kAligned>
class GemmSlices {
  static constexpr bool kAlong = kOrder == OperandOrder::kInner;
  static constexpr int kCopies = (kAlong ? Tile::kBk : kSize) / kGemmCopy;  // of a row
  static constexpr int kRows = kAlong ? kSize : Tile::kBk;
  static constexpr int kPassRows = Tile::kThreads / kCopies;  // that all threads copy at once
  static constexpr int kPasses = kRows / kPassRows;
  static_assert(kPassRows * kCopies == Tile::kThreads && kPasses * kPassRows == kRows);
  static_assert(kAlong || kGemmGroup % kPassRows == 0);  // a pass is of one group

 public:
  static constexpr int kLd = kCopies * kGemmCopy + kGemmCopy;
  static constexpr int kElements = kRows * kLd;

  __device__ GemmSlices(const GemmOperand& from, int64_t begin)
      : row_(static_cast<int>(threadIdx.x) / kCopies),
        column_(static_cast<int>(threadIdx.x) % kCopies * kGemmCopy),
        left_(static_cast<int>(min(from.size - begin, int64_t{kSize}))),
        ld_(static_cast<int>(from.ld)),
        from_(from.data + begin * (kAlong ? from.ld : 1) + column_) {}

  // An address is one integer multiply-add: tensor cores wait for what comes before.
  __device__ void fetch(Bf16* slice, const GemmGroups<Tile::kGroups>& groups) const {
    Bf16* const to = slice + row_ * kLd + column_;
    // The groups of a slice of rows lie side by side.
    const Bf16* const from = kAlong ? from_ + groups.begin[0] : from_;
    const int there = min(max((kAlong ? groups.depth : left_) - column_, 0), kGemmCopy);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      int row = row_ + pass * kPassRows;
      bool is_there = row < left_;
      if constexpr (!kAlong) {
        const int group = pass * kPassRows / kGemmGroup;
        const int r = row_ + pass * kPassRows % kGemmGroup;
        is_there = r < groups.count[group];
        row = groups.begin[group] + r;
      }
      copy(to + pass * kPassRows * kLd, from + int64_t{row} * ld_, is_there ? there : 0);
    }
  }

  /// The 16 rows of A from `row` on, at step `step` of the slice.
  static __device__ void load_a(uint32_t (&to)[4], const Bf16* slice, int row, int step, int lane) {
    if constexpr (kAlong) {
      load_four_matrices<false>(to, at(slice, row + lane % 16, step * 16 + lane / 16 * 8));
    } else {
      load_four_matrices<true>(
          to, at(slice, step * 16 + lane / 16 * 8 + lane % 8, row + lane / 8 % 2 * 8));
    }
  }
  /// The 16 columns of B from `column` on.
  static __device__ void load_b(uint32_t (&first)[2], uint32_t (&second)[2], const Bf16* slice,
                                int column, int step, int lane) {
    uint32_t words[4];
    if constexpr (kAlong) {
      load_four_matrices<false>(
          words, at(slice, column + lane / 16 * 8 + lane % 8, step * 16 + lane / 8 % 2 * 8));
    } else {
      load_four_matrices<true>(words, at(slice, step * 16 + lane % 16, column + lane / 16 * 8));
    }
    first[0] = words[0], first[1] = words[1];
    second[0] = words[2], second[1] = words[3];
  }
  /// The eight columns of B from `column` on.
  static __device__ void load_b(uint32_t (&to)[2], const Bf16* slice, int column, int step,
                                int lane) {
    if constexpr (kAlong) {
      load_two_matrices<false>(to, at(slice, column + lane % 8, step * 16 + lane / 8 % 2 * 8));
    } else {
      load_two_matrices<true>(to, at(slice, step * 16 + lane % 16, column));
    }
  }

 private:
  static __device__ const Bf16* at(const Bf16* slice, int row, int column) {
    return slice + row * kLd + column;
  }

  /// Eight elements, of which `there` are the matrix's; zeros stand for the others.
  static __device__ void copy(Bf16* to, const Bf16* from, int there) {
    if constexpr (kAligned) {
      copy_async_or_zeros(to, from, there * static_cast<int>(sizeof(Bf16)));
    } else {
      uint32_t words[kGemmCopy / 2];
#pragma unroll
      for (int w = 0; w < kGemmCopy / 2; ++w) {
        words[w] = 2 * w < there ? from[2 * w].bits : 0u;
        if (2 * w + 1 < there) words[w] |= uint32_t{from[2 * w + 1].bits} << 16;
      }
      *reinterpret_cast<uint4*>(to) = uint4{words[0], words[1], words[2], words[3]};
    }
  }

  int row_, column_;  ///< of the thread's first copy, in a slice
  int left_;          ///< rows of A or columns of B, at most kSize
  int ld_;
  const Bf16* from_;
};

/// Where a tile lies: bands of tiles, the rows of a band walked first, so that tiles
/// which run at the same time share operands of both sides.
struct GemmPlace {
  int64_t row, column;
};
template <class Tile>
__device__ GemmPlace gemm_place(const GemmProduct& product) {
  constexpr int kBand = 16;
  const int tiles_m = static_cast<int>(ceil_div(product.m, Tile::kBm));
  const int tiles_n = static_cast<int>(ceil_div(product.n, Tile::kBn));
  const int tile = static_cast<int>(blockIdx.x);
  const int first = tile / (kBand * tiles_n) * kBand, rows = min(kBand, tiles_m - first);
  const int within = tile - first * tiles_n;
  return {int64_t{first + within % rows} * Tile::kBm, int64_t{within / rows} * Tile::kBn};
}

/// Inner: OneRun or RunRows. With RunRows accumulating means that chains start from C,
/// with OneRun that C is added to them.
template <class Tile, OperandOrder kOrderA, OperandOrder kOrderB, bool kAligned, class Inner>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    gemm_kernel(GemmProduct product, GemmOperand a, GemmOperand b,
                const __grid_constant__ Inner inner) {
  using SlicesA = GemmSlices<Tile, kOrderA, Tile::kBm, kAligned>;
  using SlicesB = GemmSlices<Tile, kOrderB, Tile::kBn, kAligned>;
  using Sums = GemmSums<Tile>;
  constexpr int kStage = SlicesA::kElements + SlicesB::kElements;
  constexpr int kStages = Tile::kStages, kTm = Sums::kTm, kTn = Sums::kTn;
  extern __shared__ __align__(16) Bf16 gemm_memory[];
  const GemmPlace place = gemm_place<Tile>(product);
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_row = warp / (Tile::kBn / Tile::kWn) * Tile::kWm;
  const int warp_column = warp % (Tile::kBn / Tile::kWn) * Tile::kWn;

  const SlicesA slices_a(a, place.row);
  const SlicesB slices_b(b, place.column);
  const int slices = (inner.groups + Tile::kGroups - 1) / Tile::kGroups;
  GemmWalk<Inner> walk(inner);
  const auto slice_a = [&](int slice) { return gemm_memory + slice % kStages * kStage; };
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      const GemmGroups<Tile::kGroups> groups = walk.template next<Tile::kGroups>();
      slices_a.fetch(slice_a(slice), groups);
      slices_b.fetch(slice_a(slice) + SlicesA::kElements, groups);
    }
    end_copy_group();
  };

  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);
  Sums sums(product, place.row + warp_row, place.column + warp_column);
  if (Inner::kStartsFromC && product.accumulate) sums.begin(product);
  for (int slice = 0; slice < slices; ++slice) {
    wait_for_groups<kStages - 2>();
    __syncthreads();  // the slice is there, and nobody needs the one before
    const Bf16* const from_a = slice_a(slice);
    const Bf16* const from_b = from_a + SlicesA::kElements;
#pragma unroll
    for (int step = 0; step < Tile::kGroups; ++step) {
      uint32_t rows[kTm][4], columns[kTn][2];
#pragma unroll
      for (int i = 0; i < kTm; ++i) SlicesA::load_a(rows[i], from_a, warp_row + i * 16, step, lane);
#pragma unroll
      for (int j = 0; j + 1 < kTn; j += 2)
        SlicesB::load_b(columns[j], columns[j + 1], from_b, warp_column + j * 8, step, lane);
      if constexpr (kTn % 2 != 0)
        SlicesB::load_b(columns[kTn - 1], from_b, warp_column + (kTn - 1) * 8, step, lane);
      if (step == 0) fetch(slice + kStages - 1);  // while the operands are on their way
#pragma unroll
      for (int i = 0; i < kTm; ++i) {
#pragma unroll
        for (int j = 0; j < kTn; ++j) mma_m16n8k16(sums.sums[i][j], rows[i], columns[j]);
      }
    }
  }
  sums.end(product, !Inner::kStartsFromC && product.accumulate);
}

}  // namespace orrery::kernels::cuda
