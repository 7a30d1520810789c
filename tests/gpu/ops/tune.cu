// Times of other tiles than those of kernels/cuda/matmul.cu, to choose by: large
// products, then forwards of few rows.
#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "kernels/cuda/matmul_rows.cuh"
#include "kernels/cuda/matmul_tile.cuh"

namespace orrery::ops_check {
using namespace kernels::cuda;  // NOLINT

/// Prints the median time of what `launch` launches.
template <class Launch>
static void print_time(const char* name, const char* product_name, int64_t m, int64_t n, int64_t k,
                       const Launch& launch) {
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<float> times;
  for (int i = 0; i < 6; ++i) {
    cudaEventRecord(begin);
    launch();
    cudaEventRecord(end);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  const double ms = times[times.size() / 2];
  std::printf("| %-28s | %-8s %5lldx%6lldx%5lld | %9.4f | %6.2f | %s\n", name, product_name,
              static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k), ms,
              2e-9 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / ms,
              cudaGetErrorString(cudaGetLastError()));
  std::fflush(stdout);
}

template <class Shape, OperandOrder kOrderA, OperandOrder kOrderB>
static void time_tile(const char* name, const char* product_name, int64_t m, int64_t n, int64_t k,
                      const float* a, const float* b, float* c) {
  const Operand oa{a, kOrderA == OperandOrder::kInner ? k : m, m, true};
  const Operand ob{b, kOrderB == OperandOrder::kInner ? k : n, n, true};
  const Product product{.m = m, .n = n, .k = k, .c = c, .ldc = n, .quads = true};
  const int64_t tiles = ceil_div(m, Shape::kBm) * ceil_div(n, Shape::kBn);
  print_time(name, product_name, m, n, k, [&] {
    matmul_kernel<Shape, kOrderA, kOrderB>
        <<<static_cast<unsigned>(tiles), Shape::kThreads>>>(product, oa, ob);
  });
}

template <class Tile>
static void time_few_rows(const char* name, int64_t m, int64_t n, int64_t k, const float* x,
                          const float* weight, float* y) {
  const Product product{.m = m, .n = n, .k = k, .c = y, .ldc = n};
  const dim3 tiles(static_cast<unsigned>(ceil_div(n, Tile::kBn)),
                   static_cast<unsigned>(ceil_div(m, Tile::kBm)));
  constexpr auto kBytes = Tile::kBytes;
  cudaFuncSetAttribute(few_rows_kernel<Tile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(kBytes));
  print_time(name, "few rows", m, n, k, [&] {
    few_rows_kernel<Tile><<<tiles, Tile::kThreads, kBytes>>>(product, Operand{x, k, m, true},
                                                             Operand{weight, k, n, true});
  });
}

void tune() {
  const int64_t big = int64_t{151936} * 2048;
  float *a, *b, *c;
  if (cudaMalloc(&a, sizeof(float) * int64_t{4096} * 9728) != cudaSuccess ||
      cudaMalloc(&b, sizeof(float) * int64_t{151936} * 896) != cudaSuccess ||
      cudaMalloc(&c, sizeof(float) * big) != cudaSuccess)
    return;
  // Not zeros, which take less power: small bit patterns of every mantissa.
  std::vector<float> noise(1 << 22);
  unsigned x = 1;
  for (float& f : noise)
    f = static_cast<float>((x = x * 1664525u + 1013904223u) >> 8) * 0x1p-24f - 0.5f;
  for (int64_t i = 0; i + (1 << 22) <= int64_t{4096} * 9728; i += 1 << 22)
    cudaMemcpy(a + i, noise.data(), noise.size() * 4, cudaMemcpyHostToDevice);
  for (int64_t i = 0; i + (1 << 22) <= int64_t{151936} * 896; i += 1 << 22)
    cudaMemcpy(b + i, noise.data(), noise.size() * 4, cudaMemcpyHostToDevice);
  constexpr OperandOrder kI = OperandOrder::kInner, kO = OperandOrder::kOuter;
  std::printf("\n| tile | product | ms | TFLOP/s |\n|---|---|---|---|\n");
#define ORRERY_TILE(name, ...)                                                           \
  time_tile<TileShape<__VA_ARGS__>, kI, kI>(name, "forward", 2048, 9728, 896, a, b, c);  \
  time_tile<TileShape<__VA_ARGS__>, kI, kI>(name, "forward", 2048, 896, 4864, a, b, c);  \
  time_tile<TileShape<__VA_ARGS__>, kI, kI>(name, "forward", 4096, 4096, 4096, a, b, c); \
  time_tile<TileShape<__VA_ARGS__>, kI, kO>(name, "dx", 2048, 896, 9728, a, b, c);       \
  time_tile<TileShape<__VA_ARGS__>, kO, kO>(name, "dw", 9728, 896, 2048, a, b, c);
  ORRERY_TILE("128x128x16 32x64 /2", 128, 128, 16, 32, 64, 4, 2)
  ORRERY_TILE("128x128x8 32x64 /2", 128, 128, 8, 32, 64, 4, 2)
  ORRERY_TILE("256x128x8 64x64 /1", 256, 128, 8, 64, 64, 8, 1)
  ORRERY_TILE("128x256x8 64x64 /1", 128, 256, 8, 64, 64, 4, 1)
  ORRERY_TILE("128x64x8 32x64 /4", 128, 64, 8, 32, 64, 4, 4)
  ORRERY_TILE("64x64x16 32x32 /4", 64, 64, 16, 32, 32, 4, 4)
#undef ORRERY_TILE
  using Size = std::pair<int64_t, int64_t>;
  for (const int64_t m : {1, 8, 64}) {
    for (const auto& [n, k] :
         {Size{1152, 896}, Size{9728, 896}, Size{896, 4864}, Size{151936, 896}}) {
#define ORRERY_TILE(name, ...) time_few_rows<FewRowsTile<__VA_ARGS__>>(name, m, n, k, a, b, c);
      if (m == 1) {
        ORRERY_TILE("1x8x128 1x1 /6 of OneRow", 1, 8, 1, 1, 128, 6)
        ORRERY_TILE("1x32x64 1x1 /4", 1, 32, 1, 1, 64, 4)
        ORRERY_TILE("1x64x32 1x1 /6", 1, 64, 1, 1, 32, 6)
      } else if (m == 8) {
        ORRERY_TILE("8x8x128 1x2 /4 of EightRows", 8, 8, 1, 2, 128, 4)
        ORRERY_TILE("8x32x64 2x4 /4 of Wide", 8, 32, 2, 4, 64, 4)
        ORRERY_TILE("8x16x128 2x2 /4", 8, 16, 2, 2, 128, 4)
      }
      if (m > 1) {
        ORRERY_TILE("16x32x64 4x2 /3 of Sixteen", 16, 32, 4, 2, 64, 3)
        ORRERY_TILE("16x16x128 2x2 /3", 16, 16, 2, 2, 128, 3)
        ORRERY_TILE("32x32x64 4x4 /3", 32, 32, 4, 4, 64, 3)
      }
#undef ORRERY_TILE
      time_tile<TileShape<16, 64, 32, 16, 16, 4, 4>, kI, kI>("16x64x32 16x16 /4 of Rows", "forward",
                                                             m, n, k, a, b, c);
      time_tile<TileShape<64, 64, 16, 32, 32, 4, 4>, kI, kI>("64x64x16 32x32 /4 of Medium",
                                                             "forward", m, n, k, a, b, c);
    }
  }
}

}  // namespace orrery::ops_check
