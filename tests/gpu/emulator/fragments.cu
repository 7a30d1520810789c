#include "tests/gpu/emulator/fragments.h"

#include "kernels/cuda/async_copy.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace orrery::emulator_faults {
namespace {

__device__ uint32_t pair_of(const uint16_t* from) {
  return uint32_t{from[0]} | uint32_t{from[1]} << 16;
}

__global__ void multiply_kernel(Tile* tiles) {
  Tile& tile = tiles[blockIdx.x];
  const int lane = static_cast<int>(threadIdx.x), row = lane / 4, k = lane % 4 * 2;
  const uint32_t a[4] = {pair_of(&tile.a[row][k]), pair_of(&tile.a[row + 8][k]),
                         pair_of(&tile.a[row][k + 8]), pair_of(&tile.a[row + 8][k + 8])};
  const uint32_t b[2] = {pair_of(&tile.b[row][k]), pair_of(&tile.b[row][k + 8])};
  float d[4] = {tile.c[row][k], tile.c[row][k + 1], tile.c[row + 8][k], tile.c[row + 8][k + 1]};
  kernels::cuda::mma_m16n8k16(d, a, b);
  tile.c[row][k] = d[0], tile.c[row][k + 1] = d[1];
  tile.c[row + 8][k] = d[2], tile.c[row + 8][k + 1] = d[3];
}

__global__ void load_kernel(uint32_t* to, uint16_t* global, MatrixLoad load) {
  __shared__ __align__(16) uint16_t elements[4 * 64 + 8];
  const int lane = static_cast<int>(threadIdx.x);
  uint16_t* const rows = (load.shared ? elements : global) + load.offset / 2;
  for (int i = lane; i < load.matrices * 64; i += 32) rows[i] = static_cast<uint16_t>(i);
  if (load.barrier) __syncthreads();
  uint32_t words[4] = {};
  // Lanes beyond those that name rows may name anything.
  const uint16_t* const row = lane < load.matrices * 8 ? rows + lane * 8 : nullptr;
  if (load.matrices == 4) {
    load.transposed ? kernels::cuda::load_four_matrices<true>(words, row)
                    : kernels::cuda::load_four_matrices<false>(words, row);
  } else {
    uint32_t two[2];
    load.transposed ? kernels::cuda::load_two_matrices<true>(two, row)
                    : kernels::cuda::load_two_matrices<false>(two, row);
    words[0] = two[0], words[1] = two[1];
  }
  for (int i = 0; i < load.matrices; ++i) to[32 * i + lane] = words[i];
}

__global__ void copy_kernel(uint16_t* to, const uint16_t* from, int there, bool wait) {
  __shared__ __align__(16) uint16_t elements[8];
  kernels::cuda::copy_async_or_zeros(elements, from, there * 2);
  if (wait) kernels::cuda::wait_for_copies();
  for (int i = 0; i < 8; ++i) to[i] = elements[i];
}

}  // namespace

void multiply_tiles(Tile* tiles, int count, int threads, cudaStream_t stream) {
  multiply_kernel<<<count, threads, 0, stream>>>(tiles);
}
void load_matrices(uint32_t* to, const MatrixLoad& load, cudaStream_t stream) {
  load_kernel<<<1, load.threads, 0, stream>>>(to, reinterpret_cast<uint16_t*>(to) + 256, load);
}
void copy_or_zeros(uint16_t* to, const uint16_t* from, int there, bool wait, cudaStream_t stream) {
  copy_kernel<<<1, 1, 0, stream>>>(to, from, there, wait);
}

}  // namespace orrery::emulator_faults
