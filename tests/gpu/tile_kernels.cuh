// Kernels that compute the tiles of the self-test with each instruction and layout, and
// with the model. A tile is D = A B + C of 64 rows, n columns and k products: A
// [64][k],
// B [n][k] (its columns), C and D [64][n]; tiles follow each other in every array.
#pragma once

#include "tests/gpu/layouts.h"
#include "tests/gpu/operands.h"
#include "tests/gpu/tensor_core.cuh"

namespace orrery::selftest {

inline constexpr int kTileRows = 64;
inline constexpr int kMaxK = 64;
inline constexpr int kMaxN = 256;
/// A's place in shared memory is the first 8 KiB, B's the 32 KiB after it.
inline constexpr int kBOffset = kTileRows * kMaxK * 2;
/// And room to begin at a multiple of 1024.
inline constexpr int kTileShared = kBOffset + kMaxN * kMaxK * 2 + 1024;

struct Tiles {
  const uint16_t* a;
  const uint16_t* b;
  const uint32_t* c;
  uint32_t* d;
  int n, k;
};

static __global__ void make_operands(uint16_t* out, int64_t count, int k, uint64_t seed,
                                     bool is_b) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < count) out[i] = operand(seed, static_cast<int>(i / k), static_cast<int>(i % k), is_b);
}

static __global__ void make_starts(uint32_t* c, int64_t count, Tiles tiles, uint64_t seed) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / tiles.n, column = i % tiles.n;
  const int64_t tile = row / kTileRows;
  c[i] = start_value(seed, static_cast<int>(row), static_cast<int>(column), tiles.a + row * tiles.k,
                     tiles.b + (tile * tiles.n + column) * tiles.k);
}

/// The model, a thread an output.
static __global__ void model_tiles(Tiles tiles, int64_t count, DotClass tensor_core) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / tiles.n, column = i % tiles.n;
  const int64_t tile = row / kTileRows;
  tiles.d[i] = dot_chain(tiles.a + row * tiles.k, tiles.b + (tile * tiles.n + column) * tiles.k,
                         tiles.k, tiles.c[i], tensor_core);
}

/// Two neighbours of a row as one register, the first in the lower half.
__device__ inline uint32_t pair_at(const uint16_t* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 16;
}

/// mma.sync, a block of four warps a tile; kHalf: m16n8k8 instead of m16n8k16.
template <bool kHalf>
__global__ void mma_tiles(Tiles tiles) {
  const int64_t tile = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  const uint16_t* a = tiles.a + (tile * kTileRows + row) * tiles.k + lane % 4 * 2;
  const uint16_t* a_low = a + int64_t{8} * tiles.k;
  for (int column = 0; column < tiles.n; column += 8) {
    const uint16_t* b = tiles.b + (tile * tiles.n + column + lane / 4) * tiles.k + lane % 4 * 2;
    const int64_t out = (tile * kTileRows + row) * tiles.n + column + lane % 4 * 2;
    const int64_t places[4] = {out, out + 1, out + 8 * tiles.n, out + 8 * tiles.n + 1};
    float d[4];
    for (int i = 0; i < 4; ++i) d[i] = __uint_as_float(tiles.c[places[i]]);
    for (int k = 0; k < tiles.k; k += kHalf ? 8 : 16) {
      if constexpr (kHalf) {
        mma_m16n8k8(d, pair_at(a + k), pair_at(a_low + k), pair_at(b + k));
      } else {
        const uint32_t left[4] = {pair_at(a + k), pair_at(a_low + k), pair_at(a + k + 8),
                                  pair_at(a_low + k + 8)};
        const uint32_t right[2] = {pair_at(b + k), pair_at(b + k + 8)};
        mma_m16n8k16(d, left, right);
      }
    }
    for (int i = 0; i < 4; ++i) tiles.d[places[i]] = __float_as_uint(d[i]);
  }
}

/// wgmma, a warpgroup a tile of kSteps steps, in one group or with a wait after each;
/// from_zero: by scale-d = 0 in the first step, instead of d = C.
template <int N, bool kFromRegisters, int kTransA, int kTransB, int kSteps, bool kWaits>
__global__ void __launch_bounds__(128)
    wgmma_tiles(Tiles tiles, TileLayout layout_a, TileLayout layout_b, bool from_zero) {
  extern __shared__ unsigned char shared[];
  const auto raw = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint32_t address = (raw + 1023u) & ~1023u;
  unsigned char* const base = shared + (address - raw);
  constexpr int kK = 16 * kSteps;
  const int64_t tile = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const uint16_t* a = tiles.a + tile * kTileRows * kK;
  const uint16_t* b = tiles.b + tile * N * kK;
  const auto store = [&](unsigned char* to, const TileLayout& layout, const uint16_t* from, int i) {
    *reinterpret_cast<uint16_t*>(to + tile_offset(layout, i / kK, i % kK)) = from[i];
  };
  for (int i = thread; i < kTileRows * kK; i += 128) store(base, layout_a, a, i);
  for (int i = thread; i < N * kK; i += 128) store(base + kBOffset, layout_b, b, i);

  const int lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;
  const int64_t out = (tile * kTileRows + row) * N + lane % 4 * 2;
  const auto place = [&](int i) { return out + i / 4 * 8 + i / 2 % 2 * 8 * N + i % 2; };
  float d[128];
#pragma unroll
  for (int i = 0; i < 128; ++i) d[i] = i < N / 2 ? __uint_as_float(tiles.c[place(i)]) : 0.0f;
  uint32_t left[kSteps][4];
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      left[step][i] = pair_at(a + (row + i % 2 * 8) * kK + 16 * step + i / 2 * 8 + lane % 4 * 2);

  async_proxy_fence();
  __syncthreads();
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int accumulate = from_zero && step == 0 ? 0 : 1;
    const uint64_t right = step_descriptor(layout_b, address + kBOffset, 16 * step);
    if constexpr (kFromRegisters) {
      Wgmma<N>::template rs<kTransB>(d, left[step], right, accumulate);
    } else {
      Wgmma<N>::template ss<kTransA, kTransB>(d, step_descriptor(layout_a, address, 16 * step),
                                              right, accumulate);
    }
    if constexpr (kWaits) {
      wgmma_commit();
      wgmma_wait();
      wgmma_fence();
    }
  }
  wgmma_commit();
  wgmma_wait();
#pragma unroll
  for (int i = 0; i < 128; ++i)
    if (i < N / 2) tiles.d[place(i)] = __float_as_uint(d[i]);
}

struct Difference {
  unsigned long long count;
  unsigned long long first;  ///< the least index that differs
};

static __global__ void compare(const uint32_t* expected, const uint32_t* actual, int64_t count,
                               Difference* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count || expected[i] == actual[i]) return;
  atomicAdd(&out->count, 1ull);
  atomicMin(&out->first, static_cast<unsigned long long>(i));
}

/// How many results are zero, subnormal, infinite and NaN.
static __global__ void count_kinds(const uint32_t* d, int64_t count, unsigned long long* out) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const uint32_t magnitude = d[i] & 0x7fffffffu;
  if (magnitude == 0) atomicAdd(out, 1ull);
  if (magnitude != 0 && magnitude < 0x800000u) atomicAdd(out + 1, 1ull);
  if (magnitude == kInfinityBits) atomicAdd(out + 2, 1ull);
  if (magnitude > kInfinityBits) atomicAdd(out + 3, 1ull);
}

}  // namespace orrery::selftest
