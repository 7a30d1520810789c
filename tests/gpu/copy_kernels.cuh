// What moves bf16 tiles to where tensor cores read them, each beside its definition on
// the
// host: ldmatrix, stmatrix, cp.async, TMA with its swizzles.
#pragma once

#include <cuda.h>

#include "tests/gpu/layouts.h"
#include "tests/gpu/tensor_core.cuh"

namespace orrery::selftest {

__device__ inline uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/// One warp loads four 8 x 8 matrices that lie one after another, rows of 16 bytes; a
/// lane's four registers are out[4 lane + i]: of matrix i, row lane/4, columns 2 (lane
/// % 4) and one further on. Transposed: column and row exchanged.
template <bool kTransposed>
__global__ void ldmatrix_kernel(const uint16_t* in, uint32_t* out) {
  __shared__ alignas(16) uint16_t tile[256];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) tile[i] = in[i];
  __syncwarp();
  uint32_t r[4];
  const uint32_t row = shared_address(tile + 8 * lane);
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
  }
  for (int i = 0; i < 4; ++i) out[4 * lane + i] = r[i];
}

/// The reverse of ldmatrix: out holds the four matrices.
template <bool kTransposed>
__global__ void stmatrix_kernel(const uint32_t* in, uint16_t* out) {
  __shared__ alignas(16) uint16_t tile[256];
  const int lane = static_cast<int>(threadIdx.x);
  const uint32_t row = shared_address(tile + 8 * lane);
  const uint32_t* r = in + 4 * lane;
  if constexpr (kTransposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%4], {%0,%1,%2,%3};" ::"r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(row)
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%4], {%0,%1,%2,%3};" ::"r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3]), "r"(row)
                 : "memory");
  }
  __syncwarp();
  for (int i = lane; i < 256; i += 32) out[i] = tile[i];
}

/// 32 pieces of 16 bytes by cp.async over memory full of ones. Lane l asks for the
/// first l % 17 bytes of its piece: the rest becomes zero.
static __global__ void cp_async_kernel(const uint8_t* in, uint8_t* out) {
  __shared__ alignas(16) uint8_t tile[512];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 512; i += 32) tile[i] = 0xff;
  __syncwarp();
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(tile + 16 * lane)),
      "l"(in + 16 * lane), "r"(lane % 17)
      : "memory");
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
  __syncwarp();
  for (int i = lane; i < 512; i += 32) out[i] = tile[i];
}

/// A box of a two-dimensional bf16 tensor by TMA; out is the shared memory as it lies.
/// x, the box's first column, is a multiple of 8 (16 bytes), negative ones too: of any
/// other an H100 makes an illegal instruction.
inline constexpr int kBoxRows = 64;
static __global__ void tma_kernel(const __grid_constant__ CUtensorMap map, int x, int y, int bytes,
                                  uint8_t* out) {
  __shared__ alignas(1024) uint8_t tile[kBoxRows * 128];
  __shared__ alignas(8) uint64_t barrier;
  const int thread = static_cast<int>(threadIdx.x);
  for (int i = thread; i < bytes; i += static_cast<int>(blockDim.x)) tile[i] = 0xff;
  async_proxy_fence();
  if (thread == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier))
                 : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    async_proxy_fence();
  }
  __syncthreads();
  if (thread == 0) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
        "r"(bytes)
        : "memory");
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
        "[%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(tile)),
        "l"(&map), "r"(x), "r"(y), "r"(shared_address(&barrier))
        : "memory");
  }
  asm volatile(
      "{\n.reg .pred done;\nAGAIN:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], 0;\n@!done bra AGAIN;\n}" ::"r"(
          shared_address(&barrier))
      : "memory");
  for (int i = thread; i < bytes; i += static_cast<int>(blockDim.x)) out[i] = tile[i];
}

}  // namespace orrery::selftest
