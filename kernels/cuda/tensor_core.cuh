// Instructions of tensor cores, and of loading their operands: bf16 products with sums
// in f32, a dot16 step each (docs/numerics.md, "A step"). All 32 threads of a warp call
// them together. The emulator (tests/gpu/emulator) has a twin of each.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace orrery::kernels::cuda {

/// d = a b + d of one warp: 16 rows, 8 columns, 16 inner indices k. Of A lane l holds
/// rows l / 4 (a[0], a[2]) and 8 further on (a[1], a[3]), of B column l / 4, each at
/// k = 2 (l % 4) and the one after (a[0], a[1], b[0]), and 8 further on; of d rows as
/// of A (d[0] and d[1], d[2] and d[3]), at columns 2 (l % 4) and the one after.
__device__ inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDA_ARCH__
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(ORRERY_EMULATED)
  simt::mma_m16n8k16(d, a, b);
#endif
}

/// Four matrices of 8 x 8 elements of 16 bits from shared memory: `row` of lane l is
/// row l % 8 of matrix l / 8, 16 bytes, aligned so. Of matrix i lane l gets in to[i]
/// row l / 4 at columns 2 (l % 4) and the one after; kTransposed: column l / 4 at those
/// rows.
template <bool kTransposed>
__device__ inline void load_four_matrices(uint32_t (&to)[4], const void* row) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared)
                 : "memory");
  }
#elif defined(ORRERY_EMULATED)
  simt::load_matrices(to, row, 4, kTransposed);
#endif
}

/// Two matrices, likewise: lanes 0 to 15 name their rows.
template <bool kTransposed>
__device__ inline void load_two_matrices(uint32_t (&to)[2], const void* row) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];\n"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared)
                 : "memory");
  }
#elif defined(ORRERY_EMULATED)
  simt::load_matrices(to, row, 2, kTransposed);
#endif
}

/// An asynchronous copy of 16 bytes to shared memory (async_copy.cuh has the waits), of
/// which the first `there` are read and zeros stand for the rest. Both addresses are
/// aligned to 16 bytes, `from` even if nothing is read.
__device__ inline void copy_async_or_zeros(void* to, const void* from, int there) {
#ifdef __CUDA_ARCH__
  const auto shared = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared), "l"(from),
               "r"(there)
               : "memory");
#elif defined(ORRERY_EMULATED)
  simt::copy_async(to, from, 16, static_cast<size_t>(there));
#endif
}

/// The bits of `value` as bf16, rounded to nearest even; NaN stays NaN (f32_to_bf16 of
/// core/dtype.h).
__device__ inline uint16_t bf16_bits(float value) {
  const uint32_t u = __float_as_uint(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40u);
  return static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/// Likewise with halves away from zero (f32_to_bf16_half_away), as weights are rounded.
__device__ inline uint16_t bf16_bits_half_away(float value) {
  const uint32_t u = __float_as_uint(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(u >> 16 | 0x40u);
  return static_cast<uint16_t>((u + 0x8000u) >> 16);
}

}  // namespace orrery::kernels::cuda
