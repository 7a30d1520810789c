// Large products in bf16, by tensor cores, against the CPU's dot16 chains.
#pragma once

#include "tests/gpu/ops/large.h"

namespace orrery::ops_check {

/// Forward, dx and dw of one linear layer in bf16. Outputs are f32, runs of 500 rows.
inline void bench_bf16_product(Bench& bench, const char* name, int64_t m, int64_t n, int64_t k,
                               bool backward) {
  char shape[100];
  std::snprintf(shape, sizeof shape, "bf16 %s %lldx%lldx%lld", name, static_cast<long long>(m),
                static_cast<long long>(n), static_cast<long long>(k));
  const Both w = bench.random("w", n * k, 0.03f), x = bench.random_bf16("x", m * k);
  const Both cpu_packed = bench.raw("packed", Cpu::packed_bytes(n, k, DType::kBF16) / 4);
  const Both gpu_packed = bench.raw("packed", (Cuda::packed_bytes(n, k, DType::kBF16) + 3) / 4);
  const auto pack = [&](auto op, const Context& ctx, bool gpu, const Both& to) {
    return op(ctx, PackWeight{.weight = mat_of(w, gpu, n, k),
                              .dtype = DType::kBF16,
                              .memory = gpu ? to.device : to.host});
  };
  const PackedWeight on_cpu = pack(Cpu::pack_weight, bench.cpu, false, cpu_packed);
  const PackedWeight on_gpu = pack(Cuda::pack_weight, bench.gpu, true, gpu_packed);
  const Both y = bench.raw("y", m * n);
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double bytes = 2.0 * static_cast<double>(n * k + m * (2 * n + k));
  bench.run(
      "matmul_forward", shape,
      [&](bool gpu) {
        const MatmulForward op{
            .y = mat_of(y, gpu, m, n), .x = bf16_of(x, gpu, m, k), .weight = gpu ? on_gpu : on_cpu};
        gpu ? Cuda::matmul_forward(bench.gpu, op) : Cpu::matmul_forward(bench.cpu, op);
      },
      {y}, flops, bytes);
  if (backward) {
    const Both dy = bench.random_bf16("dy", m * n), dx = bench.raw("dx", m * k);
    bench.run(
        "matmul_backward_input", shape,
        [&](bool gpu) {
          const MatmulBackwardInput op{.dx = mat_of(dx, gpu, m, k),
                                       .dy = bf16_of(dy, gpu, m, n),
                                       .weight = gpu ? on_gpu : on_cpu};
          gpu ? Cuda::matmul_backward_input(bench.gpu, op)
              : Cpu::matmul_backward_input(bench.cpu, op);
        },
        {dx}, flops, bytes);
    std::vector<int64_t> ends;
    for (int64_t end = 500; end < m; end += 500) ends.push_back(end);
    ends.push_back(m);
    bench.run(
        "matmul_backward_weight", shape,
        [&](bool gpu) {
          const MatmulBackwardWeight op{.dw = mat_of(w, gpu, n, k),
                                        .dy = bf16_of(dy, gpu, m, n),
                                        .x = bf16_of(x, gpu, m, k),
                                        .run_ends = ends};
          gpu ? Cuda::matmul_backward_weight(bench.gpu, op)
              : Cpu::matmul_backward_weight(bench.cpu, op);
        },
        {w}, flops, 2.0 * static_cast<double>(4 * n * k + m * (n + k)));
  }
  bench.clear();
}

inline void large_bf16_products(Bench& bench) {
  Bench::heading();
  bench_bf16_product(bench, "gate_up", kTokens, 2 * kFfn, kDim, true);
  bench_bf16_product(bench, "down", kTokens, kDim, kFfn, true);
  bench_bf16_product(bench, "qkv", kTokens, kQkv, kDim, true);
  bench_bf16_product(bench, "out", kTokens, kDim, kDim, true);
  for (const int64_t rows : {1, 8, 64, 256}) {
    bench_bf16_product(bench, "qkv", rows, kQkv, kDim, false);
    bench_bf16_product(bench, "gate_up", rows, 2 * kFfn, kDim, false);
    bench_bf16_product(bench, "down", rows, kDim, kFfn, false);
  }
  bench_bf16_product(bench, "head", 64, kVocab, kDim, false);
  bench_bf16_product(bench, "square", kSquare, kSquare, kSquare, false);
}

}  // namespace orrery::ops_check
