// Our matrix products beside oneDNN's, in one process and in turns: on a shared machine
// the clock and the neighbours change from second to second, so only the ratio of two
// runs next to each other says anything. Each line gives the median of the pairwise
// ratios (above 1: ours is faster) and the GFLOP/s of each side's median turn.
//
//   bench_matmul [--benchmark_filter=forward/.*threads:1]
//
// forward_cold takes another copy of the weight in each call, as a decoding step that
// walks through all layers does. In the forward oneDNN gets its weights packed
// beforehand in the layout it prefers, as ours are. In the backward ours starts from
// the weight packed for the forward; oneDNN starts from the plain one (backward_input),
// or from one packed beforehand for this product too, a second copy that ours does not
// need (backward_input_packed).
//
// bf16_forward, bf16_backward_input and bf16_backward_weight are our products of bf16
// operands (with results in bf16, but for the weight's gradient) beside our own of f32.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "bench/dnnl_product.h"
#include "bench/turns.h"
#include "core/buffer.h"
#include "core/parallel.h"
#include "kernels/matmul.h"
#include "kernels/numerics.h"
#include "kernels/peak.h"

namespace orrery::bench {
namespace {

enum class Op { kForward, kForwardCold, kBackwardInput, kBackwardInputPacked, kBackwardWeight };
enum class PairsOp { kForward, kBackwardInput, kBackwardWeight };

struct Shape {
  const char* name;
  int64_t n, k;
};

// The layers of a model of 135M parameters (dim 576, 9 and 3 heads of 64, ffn 1536,
// vocabulary 49152), q k v and gate, up joined.
constexpr Shape kShapes[] = {
    {"qkv", 960, 576},   {"out", 576, 576},    {"gate_up", 3072, 576},
    {"down", 576, 1536}, {"head", 49152, 576},
};

/// Bytes that forward_cold walks through, one copy of the weight per call: more than
/// any third-level cache.
constexpr int64_t kColdBytes = 128 << 20;

void compare(benchmark::State& state, int threads, double flops, const std::function<void()>& ours,
             const std::function<void()>& theirs, const char* their_name = "oneDNN") {
  constexpr double kTurn = 0.5e-3, kTotal = 0.4;  // seconds
  constexpr size_t kPairs = 9;
  ours();
  theirs();
  const double estimate = std::max(seconds(threads, ours, 1), 1e-7);
  const int64_t calls = std::max<int64_t>(1, static_cast<int64_t>(kTurn / estimate));
  for (auto _ : state) {
    std::vector<double> our_times, their_times, ratios;
    const double start = now(0);
    while (ratios.size() < kPairs || now(0) - start < kTotal) {
      const bool first = ratios.size() % 2 == 0;
      const double before = seconds_of_turn(threads, first ? ours : theirs, calls);
      const double after = seconds_of_turn(threads, first ? theirs : ours, calls);
      our_times.push_back(first ? before : after);
      their_times.push_back(first ? after : before);
      ratios.push_back(their_times.back() / our_times.back());
    }
    state.SetIterationTime(median(our_times));
    state.counters["ours"] = flops / median(our_times) * 1e-9;
    state.counters[their_name] = flops / median(their_times) * 1e-9;
    state.counters["ratio"] = median(ratios);
  }
}

void run_case(benchmark::State& state, Op op, int64_t m, const Shape& shape, int threads) {
  omp_set_num_threads(threads);  // oneDNN's team
  const Context ctx{.threads = threads};
  const int64_t n = shape.n, k = shape.k;
  Buffer x = random_buffer(m * k, 1), w = random_buffer(n * k, 2), y = random_buffer(m * n, 3);
  const Mat<float> x_mat(x.span<float>().data(), m, k), w_mat(w.span<float>().data(), n, k);
  const Mat<float> y_mat(y.span<float>().data(), m, n);
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  Buffer packed(Device{}, kernels::packed_weight_bytes(Device{}, DType::kF32, n, k));
  const kernels::PackedWeight weight =
      kernels::pack_weight(ctx, {.weight = w_mat, .memory = packed.data()});
  switch (op) {
    case Op::kForward:
    case Op::kForwardCold: {
      const int64_t copies =
          op == Op::kForward ? 1 : 1 + kColdBytes / static_cast<int64_t>(packed.bytes());
      std::vector<Buffer> more;
      std::vector<kernels::PackedWeight> weights = {weight};
      std::vector<DnnlProduct> theirs;
      for (int64_t i = 0; i < copies; ++i) {
        if (i > 0) {
          more.emplace_back(Device{}, packed.bytes());
          weights.push_back(
              kernels::pack_weight(ctx, {.weight = w_mat, .memory = more.back().data()}));
        }
        theirs.emplace_back(m, n, k, x_mat.data, false, w_mat.data, true, y_mat.data, true, false);
      }
      size_t our_turn = 0, their_turn = 0;
      compare(
          state, threads, flops,
          [&] {
            kernels::matmul_forward(
                ctx, {.y = y_mat, .x = x_mat, .weight = weights[our_turn++ % weights.size()]});
          },
          [&] { theirs[their_turn++ % theirs.size()].run(); });
      break;
    }
    case Op::kBackwardInput:
    case Op::kBackwardInputPacked: {
      DnnlProduct theirs(m, k, n, y_mat.data, false, w_mat.data, false, x_mat.data,
                         op == Op::kBackwardInputPacked, false);
      compare(
          state, threads, flops,
          [&] {
            kernels::matmul_backward_input(ctx, {.dx = x_mat, .dy = y_mat, .weight = weight});
          },
          [&] { theirs.run(); });
      break;
    }
    case Op::kBackwardWeight: {
      DnnlProduct theirs(n, k, m, y_mat.data, true, x_mat.data, false, w_mat.data, false, true);
      compare(
          state, threads, flops,
          [&] { kernels::matmul_backward_weight(ctx, {.dw = w_mat, .dy = y_mat, .x = x_mat}); },
          [&] { theirs.run(); });
      break;
    }
  }
}

Buffer rounded(const Buffer& floats) {
  const Span<const float> values = floats.span<float>();
  Buffer result(Device{}, static_cast<size_t>(values.size()) * sizeof(Bf16));
  std::transform(values.begin(), values.end(), result.span<Bf16>().begin(), to_bf16);
  return result;
}

/// Both sides of a forward product take another copy of the weight in each call.
void run_pairs(benchmark::State& state, PairsOp op, int64_t m, const Shape& shape, int threads) {
  const Context ctx{.threads = threads};
  const int64_t n = shape.n, k = shape.k;
  const DType dtypes[] = {DType::kBF16, DType::kF32};
  const Buffer x = random_buffer(m * k, 1), w = random_buffer(n * k, 2),
               y = random_buffer(m * n, 3);
  const Buffer x_bf16 = rounded(x), y_bf16 = rounded(y), dw = random_buffer(n * k, 4);
  const ActMat x_mat[] = {{x_bf16.data(), DType::kBF16, m, k, k}, {x.data(), DType::kF32, m, k, k}};
  const ActMat y_mat[] = {{y_bf16.data(), DType::kBF16, m, n, n}, {y.data(), DType::kF32, m, n, n}};
  std::vector<Buffer> memory;
  std::vector<kernels::PackedWeight> weights[2];
  const int64_t copies =
      op == PairsOp::kForward ? 1 + kColdBytes / (n * k * int64_t{sizeof(float)}) : 1;
  for (const int side : {0, 1}) {
    for (int64_t i = 0; i < copies; ++i) {
      memory.emplace_back(Device{}, kernels::packed_weight_bytes(Device{}, dtypes[side], n, k));
      weights[side].push_back(
          kernels::pack_weight(ctx, {.weight = Mat<const float>(w.span<float>().data(), n, k),
                                     .dtype = dtypes[side],
                                     .memory = memory.back().data()}));
    }
  }
  size_t turns[2] = {};
  const auto run = [&](int side) {
    const kernels::PackedWeight& weight = weights[side][turns[side]++ % weights[side].size()];
    switch (op) {
      case PairsOp::kForward:
        return kernels::matmul_forward(ctx, {.y = y_mat[side], .x = x_mat[side], .weight = weight});
      case PairsOp::kBackwardInput:
        return kernels::matmul_backward_input(
            ctx, {.dx = x_mat[side], .dy = y_mat[side], .weight = weight});
      case PairsOp::kBackwardWeight:
        return kernels::matmul_backward_weight(
            ctx,
            {.dw = Mat<float>(dw.span<float>().data(), n, k), .dy = y_mat[side], .x = x_mat[side]});
    }
  };
  const double flops =
      2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  compare(
      state, threads, flops, [&] { run(0); }, [&] { run(1); }, "f32");
}

void run_peak(benchmark::State& state, int threads) {
  for (auto _ : state) {
    const double peak = kernels::measure_product_peak(threads, DType::kF32);
    state.SetIterationTime(1e-9);
    state.counters["GFLOP/s"] = peak * 1e-9;
  }
}

std::string name_of(const char* op, const Shape& shape, int64_t m, int threads) {
  return std::string(op) + "/" + shape.name + "/M:" + std::to_string(m) +
         "/N:" + std::to_string(shape.n) + "/K:" + std::to_string(shape.k) +
         "/threads:" + std::to_string(threads);
}

void register_all() {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  };
  for (const int threads : std::set<int>{1, 2, available_cpus()}) {
    add("fma_peak/threads:" + std::to_string(threads),
        [=](benchmark::State& state) { run_peak(state, threads); });
  }
  const std::pair<Op, const char*> ops[] = {{Op::kForward, "forward"},
                                            {Op::kForwardCold, "forward_cold"},
                                            {Op::kBackwardInput, "backward_input"},
                                            {Op::kBackwardInputPacked, "backward_input_packed"},
                                            {Op::kBackwardWeight, "backward_weight"}};
  for (const auto& [op, op_name] : ops) {
    for (const int threads : {1, 2}) {
      for (const Shape& shape : kShapes) {
        for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048}) {
          // Training runs on batches, decoding on few rows.
          if (op != Op::kForward && op != Op::kForwardCold && m < 64) continue;
          if (op == Op::kForwardCold && m > 64) continue;
          add(name_of(op_name, shape, m, threads),
              [op = op, m, shape, threads](benchmark::State& state) {
                run_case(state, op, m, shape, threads);
              });
        }
      }
    }
  }
  const std::pair<PairsOp, const char*> pairs_ops[] = {
      {PairsOp::kForward, "bf16_forward"},
      {PairsOp::kBackwardInput, "bf16_backward_input"},
      {PairsOp::kBackwardWeight, "bf16_backward_weight"}};
  for (const auto& [op, op_name] : pairs_ops) {
    for (const int threads : {1, 2}) {
      for (const Shape& shape : kShapes) {
        for (const int64_t m : {1, 8, 64, 512, 2048}) {
          if (op != PairsOp::kForward && m < 64) continue;
          add(name_of(op_name, shape, m, threads), [op = op, m, shape, threads](auto& state) {
            run_pairs(state, op, m, shape, threads);
          });
        }
      }
    }
  }
}

}  // namespace
}  // namespace orrery::bench

int main(int argc, char** argv) {
  const auto run = [](int count, char** arguments) {
    orrery::kernels::require_instruction_sets();
    orrery::bench::take_cpu_target();
    benchmark::Initialize(&count, arguments);
    if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 2;
    benchmark::AddCustomContext("kernels", orrery::kernels::cpu_target_name());
    orrery::bench::register_all();
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return 0;
  };
  return orrery::bench::bench_main("bench_matmul", run, argc, argv);
}
