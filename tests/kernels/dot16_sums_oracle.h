// Sums of the class dot16-rz25 that are no products, in scalar code written from
// docs/numerics.md.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace orrery::kernels::kernel_testing {

/// 256 lanes, folded by halves. term(i, acc) returns acc plus element i.
inline float sum_in_256_lanes(int64_t count, const std::function<float(int64_t, float)>& term) {
  std::vector<float> lanes(256);
  for (int64_t i = 0; i < count; ++i) {
    float& acc = lanes[static_cast<size_t>(i % 256)];
    acc = term(i, acc);
  }
  while (lanes.size() > 1) {
    const size_t half = lanes.size() / 2;
    for (size_t j = 0; j < half; ++j) lanes[j] = lanes[j] + lanes[half + j];
    lanes.resize(half);
  }
  return lanes[0];
}

/// Runs with and without rows, and of one row.
inline std::vector<std::vector<int64_t>> runs_of(int64_t rows) {
  return {{rows}, {0, 1, 1, (rows + 2) / 3, rows, rows}, {rows / 2, rows}, {}};
}

/// Adds the runs' sums to total: add_row(r, sum) returns a run's sum with row r in
/// it. Without runs all rows are added to what is there.
inline void add_runs(float& total, const std::vector<int64_t>& run_ends, int64_t rows,
                     const std::function<float(int64_t, float)>& add_row) {
  if (run_ends.empty()) {
    for (int64_t r = 0; r < rows; ++r) total = add_row(r, total);
  }
  int64_t r = 0;
  for (const int64_t end : run_ends) {
    if (r == end) continue;
    float sum = 0.0f;
    for (; r < end; ++r) sum = add_row(r, sum);
    total = total + sum;
  }
}

}  // namespace orrery::kernels::kernel_testing
