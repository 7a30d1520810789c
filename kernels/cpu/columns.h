// Splits columns among threads, for sums over rows. Every thread walks over all rows,
// so a sum's order is that of the rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"
#include "kernels/checks.h"

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
