// The machine's speed, to measure everything else against: what our own matrix product
// reaches, and the ceilings of arithmetic and memory.
#pragma once

#include "core/context.h"
#include "core/dtype.h"

namespace orrery::kernels {

/// Floating-point operations per second (2 per multiply-add) of matmul_forward with
/// operands of `dtype` (kF32 or kBF16) on a large, nearly square product: the best of
/// several runs within about `seconds`. Allocates its operands.
double measure_gemm_peak(const Context& ctx, DType dtype, double seconds = 0.3);

/// Floating-point operations per second (2 per multiply-add) that `threads` threads do
/// at most, in multiply-adds on registers: of vectors, and of AMX's tiles where
/// products of `dtype` take those. The sum over threads of the best of `turns` runs of
/// well under 0.1 ms each, by the thread's CPU time.
double measure_product_peak(int threads, DType dtype, int turns = 300);

/// The most floating-point operations per second (2 per multiply-add) of ctx's device
/// with operands of `dtype`: measure_product_peak() of the CPU's; what its clock allows
/// of a CUDA device, in bf16 on tensor cores.
double arithmetic_peak(const Context& ctx, DType dtype, int turns = 300);

/// Bytes per second that y += x moves over 256 MiB each (two reads and one write per
/// element): the best of several runs within about `seconds`.
double measure_memory_bandwidth(const Context& ctx, double seconds = 0.3);

}  // namespace orrery::kernels
