// A linear layer's product for a few rows, such as tokens that are being decoded. It is
// bound by the reads of the weight, or by the latency of one chain over k: so a block
// has few outputs, that all multiprocessors may have one, and many slices of x and of
// the weight are on their way at once. Slices lie in shared memory as rows, and a
// thread reads them four k at a time. Rule 1 of matmul_tile.cuh holds; nothing stands
// in for what the last slice lacks of k, for a thread stops there.
#pragma once

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/matmul_tile.cuh"

namespace orrery::kernels::cuda {

/// A tile of kBm rows by kBn columns in slices of kBk, kStages of them in shared
/// memory. A thread has kTm rows and kTn columns.
template <int kBm_, int kBn_, int kTm_, int kTn_, int kBk_, int kStages_>
struct FewRowsTile {
  static constexpr int kBm = kBm_, kBn = kBn_, kTm = kTm_, kTn = kTn_;
  static constexpr int kBk = kBk_, kStages = kStages_;
  static constexpr int kColumnThreads = kBn / kTn;
  /// Threads with outputs, and all.
  static constexpr int kAdders = kBm / kTm * kColumnThreads;
  static constexpr int kThreads = kAdders < kWarp ? kWarp : kAdders;
  static_assert(kThreads % kWarp == 0 && kBk % 8 == 0);
  /// Elements from row to row: 16 bytes beyond an even multiple of them, so that rows
  /// lie on other banks.
  static constexpr int kLd = kBk + 4;
  static constexpr int kStage = (kBm + kBn) * kLd;
  static constexpr size_t kBytes = size_t{kStages} * kStage * sizeof(float);
};

/// kRows rows of a slice `depth` deep, the last of them where there are fewer.
template <class Tile, int kRows>
__device__ void fetch_slice(float* to, const float* from, int64_t ld, int rows, int depth) {
  constexpr int kEach = 4, kCopies = Tile::kBk / kEach;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kCopies; i += Tile::kThreads) {
    const int row = i / kCopies, inner = i % kCopies * kEach;
    if (inner < depth)
      copy_async<16>(to + row * Tile::kLd + inner, from + min(row, rows - 1) * ld + inner);
  }
}

/// Four divides k, and rows of both operands are aligned to four elements.
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    few_rows_kernel(Product product, Operand x, Operand weight) {
  constexpr int kTm = Tile::kTm, kTn = Tile::kTn, kBk = Tile::kBk, kStages = Tile::kStages;
  constexpr int kRowStep = Tile::kBm / kTm, kColumnStep = Tile::kColumnThreads;
  extern __shared__ __align__(16) float few_rows_memory[];
  const int thread = threadIdx.x;
  const int64_t row0 = int64_t{blockIdx.y} * Tile::kBm, column0 = int64_t{blockIdx.x} * Tile::kBn;
  const int rows = static_cast<int>(min(int64_t{Tile::kBm}, product.m - row0));
  const int columns = static_cast<int>(min(int64_t{Tile::kBn}, product.n - column0));
  const int k = static_cast<int>(product.k), slices = (k + kBk - 1) / kBk;
  const bool adds = thread < Tile::kAdders;
  // The thread's rows are row + i kRowStep, its columns column + j kColumnStep.
  const int row = thread / kColumnStep, column = thread % kColumnStep;

  const auto slice_x = [&](int slice) { return few_rows_memory + slice % kStages * Tile::kStage; };
  const auto slice_w = [&](int slice) { return slice_x(slice) + Tile::kBm * Tile::kLd; };
  const auto fetch = [&](int slice) {
    if (slice < slices) {
      const int depth = min(kBk, k - slice * kBk);
      fetch_slice<Tile, Tile::kBn>(slice_w(slice), weight.data + column0 * weight.ld + slice * kBk,
                                   weight.ld, columns, depth);
      fetch_slice<Tile, Tile::kBm>(slice_x(slice), x.data + row0 * x.ld + slice * kBk, x.ld, rows,
                                   depth);
    }
    end_copy_group();
  };

  for (int slice = 0; slice < kStages - 1; ++slice) fetch(slice);
  float acc[kTm][kTn];
#pragma unroll
  for (int i = 0; i < kTm; ++i) {
#pragma unroll
    for (int j = 0; j < kTn; ++j) {
      const int r = row + i * kRowStep, c = column + j * kColumnStep;
      acc[i][j] = 0.0f;
      if (product.bias != nullptr && c < columns) acc[i][j] = product.bias[column0 + c];
      if (product.accumulate && adds && r < rows && c < columns)
        acc[i][j] = product.c[(row0 + r) * product.ldc + column0 + c];
    }
  }
  for (int slice = 0; slice < slices; ++slice) {
    wait_for_groups<kStages - 2>();
    __syncthreads();  // the slice is there, and nobody needs the one before
    fetch(slice + kStages - 1);
    if (!adds) continue;
    const float* from_x = slice_x(slice) + row * Tile::kLd;
    const float* from_w = slice_w(slice) + column * Tile::kLd;
    const auto add = [&](int inner) {
      float a[kTm][4], b[kTn][4];
#pragma unroll
      for (int i = 0; i < kTm; ++i) load_quad(from_x + i * kRowStep * Tile::kLd + inner, a[i]);
#pragma unroll
      for (int j = 0; j < kTn; ++j) load_quad(from_w + j * kColumnStep * Tile::kLd + inner, b[j]);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int i = 0; i < kTm; ++i) {
#pragma unroll
          for (int j = 0; j < kTn; ++j) acc[i][j] = __fmaf_rn(a[i][e], b[j][e], acc[i][j]);
        }
      }
    };
    const int depth = min(kBk, k - slice * kBk);
    if (depth == kBk) {
#pragma unroll 8
      for (int inner = 0; inner < kBk; inner += 4) add(inner);
    } else {
      for (int inner = 0; inner < depth; inner += 4) add(inner);
    }
  }
#pragma unroll
  for (int i = 0; i < kTm; ++i) {
#pragma unroll
    for (int j = 0; j < kTn; ++j) {
      const int r = row + i * kRowStep, c = column + j * kColumnStep;
      if (adds && r < rows && c < columns)
        product.c[(row0 + r) * product.ldc + column0 + c] = acc[i][j];
    }
  }
}

}  // namespace orrery::kernels::cuda
