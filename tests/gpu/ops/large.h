// Large operands on both sides, and ops on them: bits, and the median time on the GPU.
//
// How a shape is added: operands from the Bench, which have the same contents on both
// sides; then Bench::run() with a function that runs the op on either side, what it
// writes, and its multiply-adds times two and bytes for the rates. clear() ends the
// operands. The emulator has sizes of its own (ORRERY_EMULATED).
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <numeric>

#include "core/parallel.h"
#include "tests/gpu/ops/cases.h"

namespace orrery::ops_check {

/// An array of both sides with the same random contents.
struct Both {
  uint32_t* host = nullptr;
  uint32_t* device = nullptr;
  int64_t size = 0;
  const char* name = "";
};

/// What a stage of large shapes needs to know.
struct Bench {
  Context cpu, gpu;
  Results* results;
  std::vector<Both> arrays;
  uint64_t seed = 1;
  int runs = 9;

  ~Bench() { clear(); }
  void clear() {
    for (const Both& b : arrays) {
      std::free(b.host);
      cudaFree(b.device);
    }
    arrays.clear();
  }

  Both raw(const char* name, int64_t size) {
    Both b;
    b.size = size;
    b.name = name;
    const size_t bytes = (static_cast<size_t>(size) * 4 + 127) / 64 * 64;
    b.host = static_cast<uint32_t*>(std::aligned_alloc(64, bytes));
    require(cudaMalloc(reinterpret_cast<void**>(&b.device), bytes), "cudaMalloc");
    arrays.push_back(b);
    return b;
  }
  void upload(const Both& b) const {
    require(cudaMemcpy(b.device, b.host, static_cast<size_t>(b.size) * 4, cudaMemcpyHostToDevice),
            "upload");
  }
  /// About N(0, scale^2).
  Both random(const char* name, int64_t size, float scale = 1.0f) {
    const Both b = raw(name, size);
    const uint64_t key = seed++ * 0x9e3779b97f4a7c15ull;
    parallel_for(cpu, size, 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        uint64_t x = key + static_cast<uint64_t>(i) * 0x632be59bd9b4e019ull;
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
        x = (x ^ x >> 27) * 0x94d049bb133111ebull;
        x ^= x >> 31;
        const int sum =
            static_cast<int>((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48)) -
            131070;
        const float value = static_cast<float>(sum) / 37837.0f * scale;
        std::memcpy(b.host + i, &value, 4);
      }
    });
    upload(b);
    return b;
  }
  /// `size` elements of bf16, two in each of the array's.
  Both random_bf16(const char* name, int64_t size) {
    const Both b = random(name, (size + 1) / 2);
    parallel_for(cpu, b.size, 1 << 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        // Both of about the same size: the lower bits of the f32 are the second's
        // fraction and sign.
        const uint32_t bits = b.host[i], other = (bits & 0xffff0000u) ^ (bits << 16 & 0x807f0000u);
        b.host[i] = (bits & 0xffff0000u) | other >> 16;
      }
    });
    upload(b);
    return b;
  }
  Both constant(const char* name, int64_t size, float value) {
    const Both b = raw(name, size);
    std::fill_n(reinterpret_cast<float*>(b.host), size, value);
    upload(b);
    return b;
  }
  Both ids(const char* name, const std::vector<int32_t>& values) {
    const Both b = raw(name, static_cast<int64_t>(values.size()));
    std::memcpy(b.host, values.data(), values.size() * 4);
    upload(b);
    return b;
  }

  /// Runs op on the CPU and the GPU, compares `outputs`, then times the GPU's.
  /// op(gpu): runs it on one side.
  void run(const char* op, const std::string& shape, const std::function<void(bool)>& op_on,
           const std::vector<Both>& outputs, double flops, double bytes) {
    const auto start = std::chrono::steady_clock::now();
    op_on(false);
    const double cpu_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    op_on(true);
    require(cudaGetLastError(), op);
    require(cudaDeviceSynchronize(), op);
    OpResult& result = (*results)[op];
    ++result.cases;
    int64_t elements = 0, differing = 0;
    for (const Both& out : outputs) {
      std::vector<uint32_t> got(static_cast<size_t>(out.size));
      require(cudaMemcpy(got.data(), out.device, got.size() * 4, cudaMemcpyDeviceToHost),
              "download");
      std::atomic<int64_t> found = 0, first = out.size;
      parallel_for(cpu, out.size, 1 << 16, [&](int64_t begin, int64_t end) {
        int64_t mine = 0;
        const int64_t n =
            differences(got.data() + begin, out.host + begin, end - begin, true, &mine);
        if (n == 0) return;
        found += n;
        int64_t at = first;
        while (begin + mine < at && !first.compare_exchange_weak(at, begin + mine)) {
        }
      });
      elements += out.size;
      differing += found;
      if (found != 0 && result.first.empty()) {
        char text[300];
        const int64_t i = first;
        std::snprintf(
            text, sizeof text,
            "%s, array %s: %lld of %lld differ, first [%lld]: gpu %08x %.9g, cpu %08x %.9g",
            shape.c_str(), out.name, static_cast<long long>(found.load()),
            static_cast<long long>(out.size), static_cast<long long>(i), got[i], as_float(got[i]),
            out.host[i], as_float(out.host[i]));
        result.first = text;
      }
    }
    result.elements += elements;
    result.differing += differing;
    result.failed_cases += differing != 0;
    std::vector<float> times;
    cudaEvent_t begin, end;
    require(cudaEventCreate(&begin), "event");
    require(cudaEventCreate(&end), "event");
    double total = 0;
    for (int i = 0; i < runs && total < 400; ++i) {
      require(cudaEventRecord(begin), "record");
      op_on(true);
      require(cudaEventRecord(end), "record");
      require(cudaEventSynchronize(end), op);
      float ms = 0;
      require(cudaEventElapsedTime(&ms, begin, end), "elapsed");
      times.push_back(ms);
      total += ms;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    // What ops changed in place while they were timed is set right for the next one.
    for (const Both& out : outputs) {
      if (out.size < int64_t{200} << 20) upload(out);
    }
    std::sort(times.begin(), times.end());
    const double ms = times[times.size() / 2];
    std::printf("| %-24s | %-34s | %11lld | %8lld | %9.4f | %6.2f | %7.0f | %8.3f |\n", op,
                shape.c_str(), static_cast<long long>(elements), static_cast<long long>(differing),
                ms, flops / ms * 1e-9, bytes / ms * 1e-6, cpu_s);
    if (differing != 0) std::printf("    ^ %s\n", result.first.c_str());
    std::fflush(stdout);
  }
  static void heading() {
    std::printf(
        "\n| large op | shape | elements | differ | GPU median ms | TFLOP/s | GB/s | CPU s |\n"
        "|---|---|---|---|---|---|---|---|\n");
  }
};

inline Mat<float> mat_of(const Both& b, bool gpu, int64_t rows, int64_t cols) {
  return {reinterpret_cast<float*>(gpu ? b.device : b.host), rows, cols};
}
/// Of random_bf16.
inline Mat<Bf16> bf16_of(const Both& b, bool gpu, int64_t rows, int64_t cols) {
  return {reinterpret_cast<Bf16*>(gpu ? b.device : b.host), rows, cols};
}
inline Vec<float> vec_of(const Both& b, bool gpu) {
  return {reinterpret_cast<float*>(gpu ? b.device : b.host), b.size};
}
inline Vec<int32_t> ids_of(const Both& b, bool gpu) {
  return {reinterpret_cast<int32_t*>(gpu ? b.device : b.host), b.size};
}

#ifdef ORRERY_EMULATED
inline constexpr int64_t kDim = 96, kFfn = 160, kVocab = 2000, kTokens = 64, kQkv = 1152;
inline constexpr int64_t kSquare = 130, kFlat = 1 << 18;
#else
inline constexpr int64_t kDim = 896, kFfn = 4864, kVocab = 151936, kTokens = 2048, kQkv = 1152;
inline constexpr int64_t kSquare = 4096, kFlat = 64 << 20;
#endif

/// Forward, dx and dw of one linear layer.
inline void bench_product(Bench& bench, const char* name, int64_t m, int64_t n, int64_t k,
                          bool backward) {
  char shape[100];
  std::snprintf(shape, sizeof shape, "%s %lldx%lldx%lld", name, static_cast<long long>(m),
                static_cast<long long>(n), static_cast<long long>(k));
  const Both w = bench.random("w", n * k, 0.03f), x = bench.random("x", m * k);
  const Both cpu_packed = bench.raw("packed", Cpu::packed_bytes(n, k) / 4);
  const Both gpu_packed = bench.raw("packed", Cuda::packed_bytes(n, k) / 4);
  const PackedWeight on_cpu =
      Cpu::pack_weight(bench.cpu, {.weight = mat_of(w, false, n, k), .memory = cpu_packed.host});
  const PackedWeight on_gpu =
      Cuda::pack_weight(bench.gpu, {.weight = mat_of(w, true, n, k), .memory = gpu_packed.device});
  const Both y = bench.raw("y", m * n);
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  const double bytes = 4.0 * static_cast<double>(n * k + m * (n + k));
  bench.run(
      "matmul_forward", shape,
      [&](bool gpu) {
        const MatmulForward op{
            .y = mat_of(y, gpu, m, n), .x = mat_of(x, gpu, m, k), .weight = gpu ? on_gpu : on_cpu};
        gpu ? Cuda::matmul_forward(bench.gpu, op) : Cpu::matmul_forward(bench.cpu, op);
      },
      {y}, flops, bytes);
  if (backward) {
    const Both dy = bench.random("dy", m * n), dx = bench.raw("dx", m * k);
    bench.run(
        "matmul_backward_input", shape,
        [&](bool gpu) {
          const MatmulBackwardInput op{.dx = mat_of(dx, gpu, m, k),
                                       .dy = mat_of(dy, gpu, m, n),
                                       .weight = gpu ? on_gpu : on_cpu};
          gpu ? Cuda::matmul_backward_input(bench.gpu, op)
              : Cpu::matmul_backward_input(bench.cpu, op);
        },
        {dx}, flops, bytes);
    bench.run(
        "matmul_backward_weight", shape,
        [&](bool gpu) {
          const MatmulBackwardWeight op{
              .dw = mat_of(w, gpu, n, k), .dy = mat_of(dy, gpu, m, n), .x = mat_of(x, gpu, m, k)};
          gpu ? Cuda::matmul_backward_weight(bench.gpu, op)
              : Cpu::matmul_backward_weight(bench.cpu, op);
        },
        {w}, flops, bytes + 4.0 * static_cast<double>(n * k));
  }
  bench.clear();
}

inline void large_products(Bench& bench) {
  Bench::heading();
  bench_product(bench, "gate_up", kTokens, 2 * kFfn, kDim, true);
  bench_product(bench, "down", kTokens, kDim, kFfn, true);
  bench_product(bench, "qkv", kTokens, kQkv, kDim, true);
  bench_product(bench, "out", kTokens, kDim, kDim, true);
  bench_product(bench, "square", kSquare, kSquare, kSquare, true);
  for (const int64_t rows : {1, 8, 64, 512}) {
    bench_product(bench, "qkv", rows, kQkv, kDim, false);
    bench_product(bench, "gate_up", rows, 2 * kFfn, kDim, false);
    bench_product(bench, "down", rows, kDim, kFfn, false);
    bench_product(bench, "head", rows, kVocab, kDim, false);
  }
  bench_product(bench, "head", kTokens, kVocab, kDim, true);
}

inline void large_rows(Bench& bench) {
  Bench::heading();
  const auto side = [&](auto on_gpu, auto on_cpu, const auto& op, bool gpu) {
    gpu ? on_gpu(bench.gpu, op) : on_cpu(bench.cpu, op);
  };
  {
    const Both x = bench.random("x", kTokens * kDim), y = bench.raw("y", kTokens * kDim),
               rstd = bench.raw("rstd", kTokens), weight = bench.random("weight", kDim),
               dweight = bench.random("dweight", kDim), dx = bench.random("dx", kTokens * kDim),
               delta = bench.random("delta", kTokens * kDim);
    const auto m = [&](const Both& b, bool gpu) { return mat_of(b, gpu, kTokens, kDim); };
    const double bytes = 4.0 * kTokens * kDim;
    bench.run(
        "rmsnorm_forward", "2048x896",
        [&](bool gpu) {
          side(Cuda::rmsnorm_forward, Cpu::rmsnorm_forward,
               RmsnormForward{.y = m(y, gpu),
                              .rstd = vec_of(rstd, gpu),
                              .x = m(x, gpu),
                              .weight = vec_of(weight, gpu),
                              .eps = 1e-6f},
               gpu);
        },
        {y, rstd}, 0, 2 * bytes);
    bench.run(
        "rmsnorm_backward", "2048x896",
        [&](bool gpu) {
          side(Cuda::rmsnorm_backward, Cpu::rmsnorm_backward,
               RmsnormBackward{.dx = m(dx, gpu),
                               .dweight = vec_of(dweight, gpu),
                               .dy = m(y, gpu),
                               .x = m(x, gpu),
                               .rstd = vec_of(rstd, gpu),
                               .weight = vec_of(weight, gpu),
                               .accumulate = true},
               gpu);
        },
        {dx, dweight}, 0, 4 * bytes);
    bench.run(
        "rmsnorm_residual_forward", "2048x896",
        [&](bool gpu) {
          side(Cuda::rmsnorm_residual_forward, Cpu::rmsnorm_residual_forward,
               RmsnormResidualForward{.h = m(dx, gpu),
                                      .y = m(y, gpu),
                                      .rstd = vec_of(rstd, gpu),
                                      .x = m(x, gpu),
                                      .delta = m(delta, gpu),
                                      .weight = vec_of(weight, gpu),
                                      .eps = 1e-6f},
               gpu);
        },
        {dx, y, rstd}, 0, 4 * bytes);
    const Both db = bench.random("db", kDim);
    bench.run(
        "bias_backward", "2048x896",
        [&](bool gpu) {
          side(Cuda::bias_backward, Cpu::bias_backward,
               BiasBackward{.db = vec_of(db, gpu), .dy = m(x, gpu)}, gpu);
        },
        {db}, 0, bytes);
    bench.clear();
  }
  {
    const Both gate_up = bench.random("gate_up", kTokens * 2 * kFfn),
               out = bench.raw("out", kTokens * kFfn), dout = bench.random("dout", kTokens * kFfn),
               d = bench.raw("d_gate_up", kTokens * 2 * kFfn);
    const auto m = [&](const Both& b, bool gpu) {
      return mat_of(b, gpu, kTokens, b.size / kTokens);
    };
    const double bytes = 4.0 * kTokens * kFfn;
    bench.run(
        "swiglu_forward", "2048x4864",
        [&](bool gpu) {
          side(Cuda::swiglu_forward, Cpu::swiglu_forward,
               SwigluForward{.out = m(out, gpu), .gate_up = m(gate_up, gpu)}, gpu);
        },
        {out}, 0, 3 * bytes);
    bench.run(
        "swiglu_backward", "2048x4864",
        [&](bool gpu) {
          side(Cuda::swiglu_backward, Cpu::swiglu_backward,
               SwigluBackward{
                   .d_gate_up = m(d, gpu), .dout = m(dout, gpu), .gate_up = m(gate_up, gpu)},
               gpu);
        },
        {d}, 0, 5 * bytes);
    bench.clear();
  }
  {
    const Both x = bench.random("x", kTokens * kQkv), cos = bench.random("cos", kTokens * 32),
               sin = bench.random("sin", kTokens * 32);
    std::vector<int32_t> positions;
    for (int32_t i = 0; i < kTokens; ++i)
      positions.push_back(i * 7 % static_cast<int32_t>(kTokens));
    const Both at = bench.ids("positions", positions);
    bench.run(
        "rope_backward", "2048x16x64",
        [&](bool gpu) {
          side(Cuda::rope_backward, Cpu::rope_backward,
               RopeBackward{.dx = mat_of(x, gpu, kTokens, kQkv).col_range(0, 1024),
                            .heads = 16,
                            .rotation = {.positions = ids_of(at, gpu),
                                         .cos = mat_of(cos, gpu, kTokens, 32),
                                         .sin = mat_of(sin, gpu, kTokens, 32)}},
               gpu);
        },
        {x}, 0, 8.0 * kTokens * 1024);
    bench.clear();
  }
  {
    const Both table = bench.random("table", kVocab * kDim),
               rows = bench.raw("rows", kTokens * kDim);
    std::vector<int32_t> ids = scattered_ids(kTokens, kVocab);
    for (size_t i = 0; i < ids.size(); i += 5) ids[i] = 13;  // a frequent token
    const Both at = bench.ids("ids", ids);
    bench.run(
        "embedding_forward", "2048 of 151936x896",
        [&](bool gpu) {
          side(Cuda::embedding_forward, Cpu::embedding_forward,
               EmbeddingForward{.out = mat_of(rows, gpu, kTokens, kDim),
                                .table = mat_of(table, gpu, kVocab, kDim),
                                .ids = ids_of(at, gpu)},
               gpu);
        },
        {rows}, 0, 8.0 * kTokens * kDim);
    bench.run(
        "embedding_backward", "2048 of 151936x896",
        [&](bool gpu) {
          side(Cuda::embedding_backward, Cpu::embedding_backward,
               EmbeddingBackward{.dtable = mat_of(table, gpu, kVocab, kDim),
                                 .dout = mat_of(rows, gpu, kTokens, kDim),
                                 .ids = ids_of(at, gpu)},
               gpu);
        },
        {table}, 0, 12.0 * kTokens * kDim);
    std::vector<int32_t> source;
    for (int32_t i = 0; i < kTokens; ++i) source.push_back(9 + i / 2);
    const Both from = bench.ids("source", source);
    bench.run(
        "spread_rows", "2048x896",
        [&](bool gpu) {
          side(Cuda::spread_rows, Cpu::spread_rows,
               SpreadRows{.y = mat_of(rows, gpu, kTokens, kDim), .source = ids_of(from, gpu)}, gpu);
        },
        {rows}, 0, 8.0 * kTokens * kDim);
    bench.clear();
  }
  {
    const int64_t n = kFlat;
    const Both w = bench.random("w", n), m = bench.random("m", n),
               v = bench.constant("v", n, 0.25f), grad = bench.random("grad", n);
    const double bytes = 4.0 * static_cast<double>(n);
    bench.run(
        "adamw_step", "64M",
        [&](bool gpu) {
          side(Cuda::adamw_step, Cpu::adamw_step,
               AdamwStep{.w = vec_of(w, gpu),
                         .m = vec_of(m, gpu),
                         .v = vec_of(v, gpu),
                         .grad = vec_of(grad, gpu),
                         .t = 3,
                         .grad_scale = 0.5f},
               gpu);
        },
        {w, m, v}, 0, 7 * bytes);
    const Both sums = bench.raw("sums", n / kNormChunk);
    bench.run(
        "sum_squares_chunks", "64M",
        [&](bool gpu) {
          side(Cuda::sum_squares_chunks, Cpu::sum_squares_chunks,
               SumSquaresChunks{.sums = vec_of(sums, gpu), .x = vec_of(grad, gpu)}, gpu);
        },
        {sums}, 0, bytes);
    bench.run(
        "nested_sum", "2 parts of 64M",
        [&](bool gpu) {
          const float* const parts[] = {vec_of(w, gpu).data, vec_of(grad, gpu).data};
          side(Cuda::nested_sum, Cpu::nested_sum, NestedSum{.out = vec_of(w, gpu), .parts = parts},
               gpu);
        },
        {w}, 0, 3 * bytes);
    bench.run(
        "tree_sum", "8 parts of 8M",
        [&](bool gpu) {
          std::vector<const float*> parts;
          for (int p = 0; p < 8; ++p) parts.push_back(vec_of(grad, gpu).data + p * (n / 8));
          side(Cuda::tree_sum, Cpu::tree_sum,
               TreeSum{.out = vec_of(m, gpu).part(0, n / 8), .parts = parts}, gpu);
        },
        {m}, 0, bytes * 9 / 8);
    bench.run(
        "fill", "64M",
        [&](bool gpu) {
          side(Cuda::fill, Cpu::fill, Fill{.y = vec_of(v, gpu), .value = 1.5f}, gpu);
        },
        {v}, 0, bytes);
    const Both low = bench.raw("sums", 4);
    bench.run(
        "checksum", "64M",
        [&](bool gpu) {
          const Checksum op{vec_of(grad, gpu)};
          const FletcherSums found =
              gpu ? Cuda::checksum(bench.gpu, op) : Cpu::checksum(bench.cpu, op);
          if (gpu) {
            require(cudaMemcpy(low.device, &found, 16, cudaMemcpyHostToDevice), "upload");
          } else {
            std::memcpy(low.host, &found, 16);
          }
        },
        {low}, 0, bytes);
    bench.clear();
  }
}

inline void large_vocabulary(Bench& bench) {
  Bench::heading();
  for (const int64_t rows : {64, 1024}) {
    const Both logits = bench.random("logits", rows * kVocab, 3.0f),
               logprobs = bench.raw("logprobs", rows), entropies = bench.raw("entropies", rows),
               max = bench.raw("max", rows), log_sum = bench.raw("log_sum", rows),
               dlogp = bench.random("dlogp", rows), dentropy = bench.random("dentropy", rows),
               inv = bench.constant("inv", rows, 1.25f);
    const Both targets = bench.ids("targets", scattered_ids(rows, kVocab));
    const std::string shape = std::to_string(rows) + "x151936";
    const double bytes = 4.0 * static_cast<double>(rows * kVocab);
    bench.run(
        "logprob_forward", shape,
        [&](bool gpu) {
          const LogprobForward op{.logprobs = vec_of(logprobs, gpu),
                                  .entropies = vec_of(entropies, gpu),
                                  .max = vec_of(max, gpu),
                                  .log_sum = vec_of(log_sum, gpu),
                                  .logits = mat_of(logits, gpu, rows, kVocab),
                                  .targets = ids_of(targets, gpu),
                                  .inv_temperature = vec_of(inv, gpu)};
          gpu ? Cuda::logprob_forward(bench.gpu, op) : Cpu::logprob_forward(bench.cpu, op);
        },
        {logprobs, entropies, max, log_sum}, 0, bytes);
    bench.run(
        "logprob_backward", shape,
        [&](bool gpu) {
          const LogprobBackward op{.dlogits = mat_of(logits, gpu, rows, kVocab),
                                   .logits = mat_of(logits, gpu, rows, kVocab),
                                   .targets = ids_of(targets, gpu),
                                   .max = vec_of(max, gpu),
                                   .log_sum = vec_of(log_sum, gpu),
                                   .entropies = vec_of(entropies, gpu),
                                   .dlogp = vec_of(dlogp, gpu),
                                   .dentropy = vec_of(dentropy, gpu),
                                   .inv_temperature = vec_of(inv, gpu)};
          gpu ? Cuda::logprob_backward(bench.gpu, op) : Cpu::logprob_backward(bench.cpu, op);
        },
        {logits}, 0, 2 * bytes);
    bench.clear();
  }
}

}  // namespace orrery::ops_check
