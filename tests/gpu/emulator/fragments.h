// Small kernels of single tensor core instructions, for tests of the emulator.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace orrery::emulator_faults {

/// The operands of 16 x 8 outputs: rows of a, columns of b, and c by rows.
struct Tile {
  uint16_t a[16][16], b[8][16];
  float c[16][8];
};

/// Tile i of `tiles` by one warp: c += a b. Of the warp, `threads` take part.
void multiply_tiles(Tile* tiles, int count, int threads, cudaStream_t stream);

/// Reads `matrices` (2 or 4) of 8 x 8 elements: element (r, c) of matrix m is 64 m + 8
/// r + c. to[32 i + lane] is register i. The rows lie `offset` bytes further on than is
/// aligned; `barrier`: whether one lies between those who write and those who read.
struct MatrixLoad {
  int matrices = 4;
  bool transposed = false;
  int offset = 0;
  int threads = 32;
  bool barrier = true;
  bool shared = true;  ///< the rows are in shared memory
};
void load_matrices(uint32_t* to, const MatrixLoad& load, cudaStream_t stream);

/// to[0 .. 8) = from[0 .. there), then zeros, through copy_async_or_zeros; without
/// `wait`: read before that.
void copy_or_zeros(uint16_t* to, const uint16_t* from, int there, bool wait, cudaStream_t stream);

}  // namespace orrery::emulator_faults
