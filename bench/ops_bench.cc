// Every op on the shapes of two models, against the roofline of this machine
// (bench/README.md):
//
//   [ORRERY_CPU_TARGET=avx2] bench_ops [--benchmark_filter='135M/attention.*threads:1']
#include "bench/ops_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "bench/turns.h"
#include "kernels/numerics.h"
#include "kernels/peak.h"

namespace orrery::bench {

int64_t cold_copies(const ModelShape& model, double bytes) {
  return std::clamp<int64_t>(static_cast<int64_t>(static_cast<double>(kColdBytes) / bytes) + 1, 1,
                             model.layers);
}

std::vector<int32_t> random_ids(int64_t count, int64_t bound, uint32_t seed) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int32_t& id : ids) {
    seed = seed * 1664525u + 1013904223u;
    id = static_cast<int32_t>((static_cast<uint64_t>(seed) * static_cast<uint64_t>(bound)) >> 32);
  }
  return ids;
}

void measure(benchmark::State& state, const Machine& machine, const Cost& cost,
             const std::function<void()>& run) {
  constexpr double kTurn = 0.5e-3, kTotal = 0.2;  // seconds
  constexpr size_t kTurns = 3;
  run();
  const double estimate = std::max(seconds(machine.threads, run, 1), 1e-7);
  const int64_t calls = std::max<int64_t>(1, static_cast<int64_t>(kTurn / estimate));
  const double working_set = cost.working_set > 0 ? cost.working_set : cost.read + cost.written;
  const double arithmetic = cost.flops / machine.fma;
  const double traffic = machine.bandwidth.seconds(cost.read, cost.written, working_set);
  for (auto _ : state) {
    std::vector<double> times;
    const double start = now(0);
    while (times.size() < kTurns || now(0) - start < kTotal) {
      times.push_back(seconds(machine.threads, run, calls));
    }
    const double time = median(times);
    state.SetIterationTime(time);
    state.counters["GFLOP/s"] = cost.flops / time * 1e-9;
    state.counters["GB/s"] = (cost.read + cost.written) / time * 1e-9;
    state.counters["MB"] = working_set * 1e-6;
    state.counters["roofline"] = std::max(arithmetic, traffic) / time;
  }
  state.SetLabel(arithmetic > traffic ? "arithmetic" : "traffic");
}

void Registry::add(const std::string& name, const Body& run) const {
  for (const Machine* machine : machines_) {
    const std::string full = name + "/threads:" + std::to_string(machine->threads);
    benchmark::RegisterBenchmark(full.c_str(),
                                 [=](benchmark::State& state) { run(state, *machine); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMicrosecond);
  }
}

namespace {

std::string describe(const Machine& machine) {
  std::string text = fmt::format("{:.0f} GFLOP/s; GB/s read, write, both at", machine.fma * 1e-9);
  for (const double kib : {16.0, 256.0, 4096.0, 262144.0}) {
    const auto rate = [&](Traffic traffic) {
      return machine.bandwidth.at(traffic, kib * 1024) * 1e-9;
    };
    text += fmt::format(" {:.0f} KiB: {:.1f} {:.1f} {:.1f}{}", kib, rate(Traffic::kRead),
                        rate(Traffic::kWrite), rate(Traffic::kReadWrite), kib < 262144 ? "," : "");
  }
  return text;
}

int run(int argc, char** argv) {
  kernels::require_instruction_sets();
  take_cpu_target();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;

  const Machine one{1, kernels::measure_product_peak(1, DType::kF32), BandwidthCurve(1)};
  const Machine two{2, kernels::measure_product_peak(2, DType::kF32), BandwidthCurve(2)};
  benchmark::AddCustomContext("kernels", kernels::cpu_target_name());
  benchmark::AddCustomContext("1 thread", describe(one));
  benchmark::AddCustomContext("2 threads", describe(two));
  const Registry registry(one, two);
  add_matmul_cases(registry);
  add_attention_cases(registry);
  add_row_cases(registry);
  add_vocabulary_cases(registry);
  add_flat_cases(registry);
  benchmark::RunSpecifiedBenchmarks();
  fmt::print(stderr, "FMA peak afterwards: 1 thread {:.0f} GFLOP/s, 2 threads {:.0f}\n",
             kernels::measure_product_peak(1, DType::kF32) * 1e-9,
             kernels::measure_product_peak(2, DType::kF32) * 1e-9);
  benchmark::Shutdown();
  return 0;
}

}  // namespace
}  // namespace orrery::bench

int main(int argc, char** argv) {
  return orrery::bench::bench_main("bench_ops", orrery::bench::run, argc, argv);
}
