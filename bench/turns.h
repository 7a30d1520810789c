// What benchmarks that compare two implementations in turns share: clocks and medians.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <vector>

#include "core/buffer.h"

namespace orrery {

/// Seconds. Time of one thread's work is its CPU time, so that neighbours who take turns on the CPU do not
/// count; of several threads', wall-clock time.
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

}  // namespace orrery
