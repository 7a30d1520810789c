// How blocks of threads find their queries. Query f of a segment and kv head is row
// f / group, head kv_head * group + f % group, as on the CPU.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cuda/kv_layout.cuh"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {

/// A forward, as its kernels read it.
struct ForwardOp {
  Mat<float> out, lse;
  Mat<const float> q;
  KvBlocks pool;
  Vec<const PlannedSegment> segments;
  const int32_t* tables = nullptr;
  int group = 0, head_dim = 0;
  float scale = 1.0f;
};

/// Of segments with min_queries to max_queries queries of a kv head, cut into tiles of
/// `tile` queries.
struct ItemRange {
  int tile = 0;
  int64_t min_queries = 0, max_queries = 0;
};

/// Queries [begin, begin + tile) of a segment, or segment -1.
struct QueryItem {
  int64_t segment = -1;
  int64_t begin = 0;
};

/// The item number `index`, found by one warp. Items count by segment; in a segment they
/// count down, as its last queries see the most keys.
__device__ inline QueryItem find_item(Vec<const PlannedSegment> segments, int group,
                                      const ItemRange& range, int64_t index) {
  QueryItem item;
  const int lane = threadIdx.x % kWarp;
  for (int64_t first = 0; first < segments.size; first += kWarp) {
    int64_t count = 0;
    if (first + lane < segments.size) {
      const int64_t queries = segments.data[first + lane].rows * group;
      if (queries >= range.min_queries && queries <= range.max_queries)
        count = ceil_div(queries, range.tile);
    }
    int64_t end = count;  // of the segments up to this lane's
#pragma unroll
    for (int step = 1; step < kWarp; step *= 2) {
      const int64_t before = __shfl_up_sync(kAllThreads, end, step);
      if (lane >= step) end += before;
    }
    const unsigned beyond = __ballot_sync(kAllThreads, end > index);
    if (beyond != 0) {
      const int owner = __ffs(static_cast<int>(beyond)) - 1;
      item.segment = first + owner;
      item.begin = (__shfl_sync(kAllThreads, end, owner) - 1 - index) * range.tile;
      return item;
    }
    index -= __shfl_sync(kAllThreads, end, kWarp - 1);
  }
  return item;
}

}  // namespace orrery::kernels::cuda
