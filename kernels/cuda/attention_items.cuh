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

/// One of a segment's `count` items, or of segment -1.
struct Item {
  int64_t segment = -1;
  int64_t index = 0;
  int64_t count = 0;
};

/// The item number `index` where segment s has items_of(s) of them, found by one warp.
template <class ItemsOf>
__device__ Item find_item(int64_t segments, const ItemsOf& items_of, int64_t index) {
  Item item;
  const int lane = threadIdx.x % kWarp;
  for (int64_t first = 0; first < segments; first += kWarp) {
    const int64_t count = first + lane < segments ? items_of(first + lane) : 0;
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
      item.count = __shfl_sync(kAllThreads, count, owner);
      item.index = index - (__shfl_sync(kAllThreads, end, owner) - item.count);
      return item;
    }
    index -= __shfl_sync(kAllThreads, end, kWarp - 1);
  }
  return item;
}

/// Queries [begin, begin + tile) of a segment, or segment -1.
struct QueryItem {
  int64_t segment = -1;
  int64_t begin = 0;
};

/// The item number `index` of a range. In a segment they count down, as its last
/// queries see the most keys.
template <class Segment>
__device__ QueryItem find_queries(Vec<const Segment> segments, int group, const ItemRange& range,
                                  int64_t index) {
  const auto items_of = [&](int64_t s) -> int64_t {
    const int64_t queries = segments.data[s].rows * group;
    const bool taken = queries >= range.min_queries && queries <= range.max_queries;
    return taken ? ceil_div(queries, range.tile) : 0;
  };
  const Item item = find_item(segments.size, items_of, index);
  return {item.segment, (item.count - 1 - item.index) * range.tile};
}

}  // namespace orrery::kernels::cuda
