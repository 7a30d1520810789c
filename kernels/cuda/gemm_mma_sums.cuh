// The accumulators of a bf16 product (gemm_mma.cuh): where in C they lie, how they
// start and how they become C.
#pragma once

#include "kernels/cuda/gemm_mma_inner.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace orrery::kernels::cuda {

struct GemmProduct {
  int64_t m = 0, n = 0;
  void* c = nullptr;  ///< f32, or bf16 where `to_bf16`
  int64_t ldc = 0;
  const float* bias = nullptr;
  bool accumulate = false;
  bool to_bf16 = false;
  bool pairs = false;  ///< pairs of elements of C are aligned
};

/// A tile of kBm by kBn by warps of kWm by kWn, in slices of kBk.
template <int kBm_, int kBn_, int kBk_, int kWm_, int kWn_, int kStages_, int kBlocks_>
struct GemmTile {
  static constexpr int kBm = kBm_, kBn = kBn_, kBk = kBk_, kWm = kWm_, kWn = kWn_;
  static constexpr int kStages = kStages_;
  static constexpr int kBlocks = kBlocks_;  ///< a multiprocessor is to hold
  static constexpr int kThreads = kBm / kWm * (kBn / kWn) * kWarp;
  static constexpr int kGroups = kBk / kGemmGroup;
  static_assert(kWm % 16 == 0 && kWn % 8 == 0 && kBk % kGemmGroup == 0);
};

/// The accumulators of a warp, and where in C they lie.
template <class Tile>
struct GemmSums {
  static constexpr int kTm = Tile::kWm / 16, kTn = Tile::kWn / 8;
  float sums[kTm][kTn][4] = {};

  /// Of the warp whose first sum is at (row, column).
  __device__ GemmSums(const GemmProduct& product, int64_t row, int64_t column) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    row += lane / 4;
    column += lane % 4 * 2;
    first_ = row * product.ldc + column;
    column_ = column;
    rows_ = static_cast<int>(min(product.m - row, int64_t{Tile::kWm}));
    columns_ = static_cast<int>(min(product.n - column, int64_t{Tile::kWn}));
  }

  /// The sums start from C.
  __device__ void begin(const GemmProduct& product) {
    for_each_pair(static_cast<const float*>(product.c), product.ldc,
                  [&](float& first, float& second, const float* from, int count) {
                    load_pair(product, from, count, first, second);
                  });
  }

  /// Adds the bias, or what is there, and writes C.
  __device__ void end(const GemmProduct& product, bool add) {
    if (product.bias != nullptr) add_bias(product.bias + column_);
    if (product.to_bf16) {
      for_each_pair(static_cast<uint16_t*>(product.c), product.ldc,
                    [&](float first, float second, uint16_t* to, int count) {
                      const uint16_t low = bf16_bits(first), high = bf16_bits(second);
                      if (product.pairs && count >= 2) {
                        *reinterpret_cast<uint32_t*>(to) = uint32_t{low} | uint32_t{high} << 16;
                      } else {
                        if (count >= 1) to[0] = low;
                        if (count >= 2) to[1] = high;
                      }
                    });
      return;
    }
    for_each_pair(static_cast<float*>(product.c), product.ldc,
                  [&](float first, float second, float* to, int count) {
                    if (add) {
                      float before = 0.0f, beside = 0.0f;
                      load_pair(product, to, count, before, beside);
                      first = __fadd_rn(before, first);
                      second = __fadd_rn(beside, second);
                    }
                    if (product.pairs && count >= 2) {
                      *reinterpret_cast<float2*>(to) = make_float2(first, second);
                    } else {
                      if (count >= 1) to[0] = first;
                      if (count >= 2) to[1] = second;
                    }
                  });
  }

 private:
  /// Calls body(sum, the one beside it, where in C, how many elements of C there are
  /// from there on) for each pair that is not below C.
  template <class T, class Body>
  __device__ void for_each_pair(T* c, int64_t ldc, const Body& body) {
    c += first_;
#pragma unroll
    for (int i = 0; i < kTm; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (i * 16 + half * 8 < rows_) {
#pragma unroll
          for (int j = 0; j < kTn; ++j)
            body(sums[i][j][2 * half], sums[i][j][2 * half + 1], c + j * 8, columns_ - j * 8);
        }
        c += 8 * ldc;
      }
    }
  }

  __device__ void add_bias(const float* bias) {
#pragma unroll
    for (int j = 0; j < kTn; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (j * 8 + e >= columns_) continue;
        const float value = bias[j * 8 + e];
#pragma unroll
        for (int i = 0; i < kTm; ++i) {
          sums[i][j][e] = __fadd_rn(sums[i][j][e], value);
          sums[i][j][e + 2] = __fadd_rn(sums[i][j][e + 2], value);
        }
      }
    }
  }

  static __device__ void load_pair(const GemmProduct& product, const float* from, int count,
                                   float& first, float& second) {
    if (product.pairs && count >= 2) {
      const float2 pair = *reinterpret_cast<const float2*>(from);
      first = pair.x, second = pair.y;
    } else {
      if (count >= 1) first = from[0];
      if (count >= 2) second = from[1];
    }
  }

  int64_t first_, column_;  ///< this thread's first sum: in C, and in a row of it
  int rows_, columns_;      ///< of C from there on, as far as the warp's go
};

}  // namespace orrery::kernels::cuda
