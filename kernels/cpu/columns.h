// Splits columns among threads, for sums over rows. Every thread walks over all rows,
// so a sum's order is that of the rows.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/parallel.h"
#include "core/span.h"
#include "kernels/checks.h"
#include "kernels/cpu/elementwise.h"

namespace orrery::kernels {

/// Calls body(begin, end) for disjoint ranges of columns that begin at multiples of 16
/// floats (a cache line).
template <class Body>
void parallel_columns(const Context& ctx, int64_t rows, int64_t cols, Body&& body) {
  constexpr int64_t kLine = 16;
  const int64_t grain = kStreamGrain / std::max<int64_t>(rows * kLine, 1);
  parallel_for(ctx, (cols + kLine - 1) / kLine, grain, [&](int64_t begin, int64_t end) {
    body(begin * kLine, std::min(end * kLine, cols));
  });
}

}  // namespace orrery::kernels

namespace orrery::kernels::cpu {

struct Rows {
  int64_t begin, end;
};

/// Adds columns [begin, end) of all rows to those of `sums`, where
/// add_rows(to, rows, first, last) adds columns [first, last) of some rows to
/// to[0 .. last - first), one row after the other. With run_ends each run is added up
/// from 0 and its sum then added; a run without rows adds nothing.
template <class AddRows>
void add_runs(float* sums, Span<const int64_t> run_ends, int64_t rows, int64_t begin, int64_t end,
              const AddRows& add_rows) {
  if (run_ends.empty()) {
    add_rows(sums + begin, Rows{0, rows}, begin, end);
    return;
  }
  constexpr int64_t kColumns = 1024;  // what one run's sums take stays in the nearest cache
  alignas(64) std::array<float, kColumns> run_sums;
  Rows run{0, 0};
  for (const int64_t run_end : run_ends) {
    run = {run.end, run_end};
    if (run.begin == run.end) continue;
    for (int64_t first = begin; first < end; first += kColumns) {
      const int64_t last = std::min(first + kColumns, end);
      std::fill_n(run_sums.data(), last - first, 0.0f);
      add_rows(run_sums.data(), run, first, last);
      add_elements(sums + first, sums + first, run_sums.data(), last - first);
    }
  }
}

}  // namespace orrery::kernels::cpu
