// Sums over rows in runs (docs/numerics.md, "Sums that are no products"): of each
// column the rows of a run are summed from 0, and the runs' sums added in order. Runs
// do not depend on one another, so the threads of a block take several at once.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "kernels/cuda/gemm_mma_inner.cuh"

namespace orrery::kernels::cuda {

inline constexpr int kRunThreads = 512;
/// Columns of a block: where there are many of them, and for a few.
inline constexpr int kRunColumns = 32, kFewRunColumns = 8;
inline constexpr int64_t kMostFewRunColumns = 512;

/// Calls launch(runs, first) for the runs that have rows, so many at a time as a launch
/// takes; it counts rows from row `first`. Without any it is called once, with none.
template <class Launch>
void for_runs(Span<const int64_t> run_ends, const Launch& launch) {
  RunRows runs;
  int64_t first = 0, begin = 0;  // rows: of this launch, of the next run
  for (const int64_t end : run_ends) {
    if (end == begin) continue;
    if (runs.count == RunRows::kMost) {
      launch(runs, first);
      runs.count = 0;
      first = begin;
    }
    runs.ends[runs.count++] = static_cast<int>(end - first);
    begin = end;
  }
  launch(runs, first);
}

/// Adds the runs' sums of the block's columns to `sums`, or to 0 where nothing is to be
/// added to. sum_of(column, begin, end) is the sum of rows [begin, end) from 0.
template <int kColumns, class SumOf>
__device__ void add_runs(float* sums, int64_t columns, bool accumulate, const RunRows& runs,
                         const SumOf& sum_of) {
  constexpr int kTogether = kRunThreads / kColumns;
  __shared__ float run_sums[kTogether][kColumns];
  const int mine = threadIdx.x % kColumns, place = threadIdx.x / kColumns;
  const int64_t column = int64_t{blockIdx.x} * kColumns + mine;
  const bool there = column < columns, adds = there && place == 0;
  float total = adds && accumulate ? sums[column] : 0.0f;
  for (int first = 0; first < runs.count; first += kTogether) {
    const int run = first + place;
    if (there && run < runs.count)
      run_sums[place][mine] = sum_of(column, run == 0 ? 0 : runs.ends[run - 1], runs.ends[run]);
    __syncthreads();
    const int together = min(kTogether, runs.count - first);
    if (adds) {
      for (int r = 0; r < together; ++r) total = __fadd_rn(total, run_sums[r][mine]);
    }
    __syncthreads();
  }
  if (adds) sums[column] = total;
}

}  // namespace orrery::kernels::cuda
