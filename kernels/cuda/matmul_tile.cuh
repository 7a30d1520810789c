// The tile of a matrix product in chain order: C [m, n] (+)= A [m, k] B [k, n]. A block
// of threads computes a tile of C, each thread a few rows and columns of it in
// registers. What holds, and makes every element of C one chain:
//   1. One thread computes an element of C, runs over k in rising order with one fma a
//      step, and starts from zero, the bias or C itself.
//   2. Slices of A and B, kBk deep, come through shared memory, k-major; the next slice
//      is on its way from global memory while this one is used.
//   3. What a slice lacks of k is -0 in A and +0 in B: their product is -0, and adding
//      -0 changes no float, -0 and NaN included. Rows and columns outside C are
//      computed and dropped.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {

/// Where element (i, p) of an operand lies, i its row of A or column of B, p the inner
/// index.
enum class OperandOrder {
  kInner,  ///< i * ld + p
  kOuter,  ///< p * ld + i
};

struct Operand {
  const float* data = nullptr;
  int64_t ld = 0;
  int64_t size = 0;    ///< rows of A or columns of B
  bool quads = false;  ///< groups of four elements are aligned
};

struct Product {
  int64_t m = 0, n = 0, k = 0;
  float* c = nullptr;
  int64_t ldc = 0;
  const float* bias = nullptr;
  bool accumulate = false;
  bool quads = false;  ///< groups of four elements of C are aligned
};

__device__ inline void load_quad(const float* from, float (&to)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(from);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

/// A tile of kBm by kBn by warps of kWm by kWn, whose threads stand kLm by kLn. A
/// thread's rows come in groups of kRowGroup, the groups of a warp's threads side by
/// side; columns likewise.
template <int kBm_, int kBn_, int kBk_, int kWm_, int kWn_, int kLm_, int kBlocks_>
struct TileShape {
  static constexpr int kBm = kBm_, kBn = kBn_, kBk = kBk_, kWm = kWm_, kWn = kWn_;
  static constexpr int kLm = kLm_, kLn = kWarp / kLm_;
  static constexpr int kThreads = kBm / kWm * (kBn / kWn) * kWarp;
  static constexpr int kBlocks = kBlocks_;  ///< a multiprocessor is to hold
  static constexpr int kTm = kWm / kLm, kTn = kWn / kLn;
  static constexpr int kRowGroup = kTm < 4 ? kTm : 4, kColumnGroup = kTn < 4 ? kTn : 4;
  static constexpr int kLdA = kBm + 4, kLdB = kBn + 4;
};

/// One thread's share of the slices of an operand.
template <OperandOrder kOrder, int kSize, int kBk, int kThreads>
class SliceLoader {
  static constexpr int kQuads = kSize * kBk / 4 / kThreads;
  static constexpr int kLd = kSize + 4;
  static_assert(kQuads * kThreads * 4 == kSize * kBk);

 public:
  /// The slices of rows (or columns) from `begin` on. What is outside the operand is
  /// `fill`.
  __device__ SliceLoader(const Operand& from, int64_t begin, int64_t k, float fill)
      : ld_(from.ld), fill_(fill), left_(static_cast<int>(k)) {
    rows_ = static_cast<int>(from.size - begin < kSize ? from.size - begin : kSize);
    whole_ = from.quads && rows_ == kSize;
    next_ = from.data + begin * (kOrder == OperandOrder::kInner ? from.ld : 1) +
            offset(row_of(threadIdx.x), inner_of(threadIdx.x));
  }

  /// The next slice into registers.
  __device__ void load() {
    if (whole_ && left_ >= kBk) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) load_quad(next_ + step(q), values_[q]);
    } else {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) load_some(q);
    }
    next_ += kOrder == OperandOrder::kInner ? int64_t{kBk} : kBk * ld_;
    left_ -= kBk;
  }

  __device__ void store(float* slice) const {
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      const int at = static_cast<int>(threadIdx.x) + q * kThreads;
      float* to = slice + inner_of(at) * kLd + row_of(at);
      if constexpr (kOrder == OperandOrder::kInner) {
#pragma unroll
        for (int e = 0; e < 4; ++e) to[e * kLd] = values_[q][e];
      } else {
        *reinterpret_cast<float4*>(to) =
            make_float4(values_[q][0], values_[q][1], values_[q][2], values_[q][3]);
      }
    }
  }

 private:
  // Consecutive threads take consecutive rows, so that the transposed store meets each
  // bank once; or consecutive quads of a row of the slice.
  static __device__ int row_of(int at) {
    return kOrder == OperandOrder::kInner ? at % kSize : at % (kSize / 4) * 4;
  }
  static __device__ int inner_of(int at) {
    return kOrder == OperandOrder::kInner ? at / kSize * 4 : at / (kSize / 4);
  }
  __device__ int64_t offset(int row, int inner) const {
    return kOrder == OperandOrder::kInner ? row * ld_ + inner : inner * ld_ + row;
  }
  /// From the thread's first quad to quad q.
  __device__ int64_t step(int q) const {
    if constexpr (kOrder == OperandOrder::kInner) {
      static_assert(kThreads % kSize == 0 || kSize % kThreads == 0);
      if constexpr (kThreads >= kSize) return q * (kThreads / kSize * 4);
      constexpr int kRowSteps = kSize >= kThreads ? kSize / kThreads : 1;
      return q % kRowSteps * kThreads * ld_ + q / kRowSteps * 4;
    } else {
      static_assert(kThreads * 4 % kSize == 0);
      return q * (kThreads * 4 / kSize) * ld_;
    }
  }

  __device__ void load_some(int q) {
    constexpr bool kAlong = kOrder == OperandOrder::kInner;
    const int at = static_cast<int>(threadIdx.x) + q * kThreads;
    const int row = row_of(at), inner = inner_of(at);
    const float* const from = next_ + step(q);
    // Elements of the quad that are there.
    int count = kAlong ? left_ - inner : rows_ - row;
    if (kAlong ? row >= rows_ : inner >= left_) count = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) values_[q][e] = e < count ? from[e] : fill_;
  }

  int64_t ld_;
  float fill_;
  int left_;  ///< inner indices that no slice has brought yet
  int rows_;  ///< at most kSize
  bool whole_;
  const float* next_;
  float values_[kQuads][4];
};

template <class Shape, OperandOrder kOrderA, OperandOrder kOrderB>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    matmul_kernel(Product product, Operand a, Operand b) {
  constexpr int kBm = Shape::kBm, kBn = Shape::kBn, kBk = Shape::kBk;
  constexpr int kTm = Shape::kTm, kTn = Shape::kTn;
  constexpr int kRowGroup = Shape::kRowGroup, kColumnGroup = Shape::kColumnGroup;
  constexpr int kLdA = Shape::kLdA, kLdB = Shape::kLdB;
  __shared__ __align__(16) float slices_a[2][kBk * kLdA];
  __shared__ __align__(16) float slices_b[2][kBk * kLdB];

  // Tiles that run at the same time share operands: the shorter side is walked first.
  const int64_t tiles_m = ceil_div(product.m, kBm), tiles_n = ceil_div(product.n, kBn);
  const int64_t tile = blockIdx.x;
  const bool rows_first = tiles_m < tiles_n;
  const int64_t row0 = (rows_first ? tile % tiles_m : tile / tiles_n) * kBm;
  const int64_t column0 = (rows_first ? tile / tiles_m : tile % tiles_n) * kBn;

  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int warp_row = warp / (kBn / Shape::kWn) * Shape::kWm;
  const int warp_column = warp % (kBn / Shape::kWn) * Shape::kWn;
  const int lane_row = lane / Shape::kLn * kRowGroup;
  const int lane_column = lane % Shape::kLn * kColumnGroup;
  const auto row_of = [&](int i) {
    return warp_row + i / kRowGroup * (Shape::kLm * kRowGroup) + lane_row + i % kRowGroup;
  };
  const auto column_of = [&](int j) {
    return warp_column + j / kColumnGroup * (Shape::kLn * kColumnGroup) + lane_column +
           j % kColumnGroup;
  };

  SliceLoader<kOrderA, kBm, kBk, Shape::kThreads> load_a(a, row0, product.k, -0.0f);
  SliceLoader<kOrderB, kBn, kBk, Shape::kThreads> load_b(b, column0, product.k, 0.0f);
  if (product.k > 0) {
    load_a.load();
    load_b.load();
  }

  float acc[kTm][kTn];
#pragma unroll
  for (int i = 0; i < kTm; ++i) {
#pragma unroll
    for (int j = 0; j < kTn; ++j) {
      const int64_t row = row0 + row_of(i), column = column0 + column_of(j);
      acc[i][j] = 0.0f;
      if (product.bias != nullptr && column < product.n) acc[i][j] = product.bias[column];
      if (product.accumulate && row < product.m && column < product.n)
        acc[i][j] = product.c[row * product.ldc + column];
    }
  }

  if (product.k > 0) {
    load_a.store(slices_a[0]);
    load_b.store(slices_b[0]);
    __syncthreads();
    int now = 0;
    for (int p = 0;; p += kBk) {
      const bool more = p + kBk < product.k;
      if (more) {
        load_a.load();
        load_b.load();
      }
      const float* slice_a = slices_a[now];
      const float* slice_b = slices_b[now];
#pragma unroll
      for (int inner = 0; inner < kBk; ++inner) {
        float x[kTm], y[kTn];
#pragma unroll
        for (int i = 0; i < kTm; i += kRowGroup) {
          const float* from = slice_a + inner * kLdA + row_of(i);
          if constexpr (kRowGroup == 4) {
            const float4 v = *reinterpret_cast<const float4*>(from);
            x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
          } else {
#pragma unroll
            for (int e = 0; e < kRowGroup; ++e) x[i + e] = from[e];
          }
        }
#pragma unroll
        for (int j = 0; j < kTn; j += kColumnGroup) {
          const float* from = slice_b + inner * kLdB + column_of(j);
          if constexpr (kColumnGroup == 4) {
            const float4 v = *reinterpret_cast<const float4*>(from);
            y[j] = v.x, y[j + 1] = v.y, y[j + 2] = v.z, y[j + 3] = v.w;
          } else {
#pragma unroll
            for (int e = 0; e < kColumnGroup; ++e) y[j + e] = from[e];
          }
        }
#pragma unroll
        for (int i = 0; i < kTm; ++i) {
#pragma unroll
          for (int j = 0; j < kTn; ++j) acc[i][j] = __fmaf_rn(x[i], y[j], acc[i][j]);
        }
      }
      if (!more) break;
      now ^= 1;
      load_a.store(slices_a[now]);
      load_b.store(slices_b[now]);
      __syncthreads();
    }
  }

#pragma unroll
  for (int i = 0; i < kTm; ++i) {
    const int64_t row = row0 + row_of(i);
    if (row >= product.m) continue;
    float* const out = product.c + row * product.ldc;
#pragma unroll
    for (int j = 0; j < kTn; j += kColumnGroup) {
      const int64_t column = column0 + column_of(j);
      if constexpr (kColumnGroup == 4) {
        if (product.quads && column + 4 <= product.n) {
          *reinterpret_cast<float4*>(out + column) =
              make_float4(acc[i][j], acc[i][j + 1], acc[i][j + 2], acc[i][j + 3]);
          continue;
        }
      }
#pragma unroll
      for (int e = 0; e < kColumnGroup; ++e) {
        if (column + e < product.n) out[column + e] = acc[i][j + e];
      }
    }
  }
}

}  // namespace orrery::kernels::cuda
