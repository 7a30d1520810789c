// What benchmarks that compare two implementations in turns share: clocks, medians and
// main().
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <thread>
#include <vector>

#include "core/buffer.h"
#include "kernels/numerics.h"

namespace orrery::bench {

/// ORRERY_CPU_TARGET restricts the instruction set, as it does for `orrery`.
inline void take_cpu_target() {
  if (const char* target = std::getenv("ORRERY_CPU_TARGET")) kernels::set_cpu_target(target);
}

/// Seconds. Time of one thread's work is its CPU time, so that neighbours who take
/// turns on the CPU do not count; of several threads', wall-clock time.
inline double now(int threads) {
  timespec time{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

template <class Run>
double seconds(int threads, Run&& run, int64_t calls) {
  const double start = now(threads);
  for (int64_t i = 0; i < calls; ++i) run();
  return (now(threads) - start) / static_cast<double>(calls);
}

/// As seconds(), after a turn that another team of threads had: libgomp's members
/// (oneDNN's) spin for milliseconds after their last loop, on the CPUs that this turn
/// needs. They sleep, and an untimed call wakes this team.
template <class Run>
double seconds_of_turn(int threads, Run&& run, int64_t calls) {
  if (threads > 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    run();
  }
  return seconds(threads, run, calls);
}

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Numbers in [-1, 1).
inline Buffer random_buffer(int64_t count, uint32_t seed) {
  Buffer buffer(Device{}, static_cast<size_t>(count) * sizeof(float));
  for (float& value : buffer.span<float>()) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-31f;
  }
  return buffer;
}

/// main() of the benchmark `name`: an exception is one line and exit code 1.
inline int bench_main(const char* name, int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: error: %s\n", name, e.what());
    return 1;
  }
}

}  // namespace orrery::bench
