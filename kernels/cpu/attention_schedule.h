// What the CPU's backwards of attention share: a batch's trees and how they are spread
// over threads. attention_schedule.cc makes a BackwardSchedule once for all layers.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/context.h"
#include "core/parallel.h"
#include "core/span.h"
#include "kernels/attention_plan.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {

/// The trees that the segments form, numbered by their roots in list order.
struct Trees {
  int64_t count = 0;
  int64_t depth = 0;          ///< most segments on a path
  int64_t max_tiles = 0;      ///< most tiles of one tree
  Array<int32_t> of_segment;  ///< [segment], its tree
  Array<int64_t> first_tile;  ///< [segment], within its tree
  Array<int32_t> segments;    ///< sorted by tree, in list order within one
  Array<int64_t> begin;       ///< [count + 1], into `segments`
  Array<int64_t> tile_begin;  ///< [count + 1], over all trees
  Array<double> cost;         ///< [count], pairs of a query and a key

  int64_t tiles(int64_t tree) const { return tile_begin[tree + 1] - tile_begin[tree]; }
  Span<const int32_t> members(int64_t tree) const {
    return Span(segments).subspan(begin[tree], begin[tree + 1] - begin[tree]);
  }
};

struct BackwardSchedule {
  Trees trees;
  bool whole = true;  ///< one thread walks a whole (tree, kv head)
  /// [segment], one past its last item of a kv head: first its groups of key tiles (dk,
  /// dv), then its query blocks (dq). Where the trees are not walked whole. In f32, and
  /// in bf16.
  Array<int64_t> item_end, pairs_item_end;
};

/// Whether `ancestor` is on the path from the root to `segment`, itself included.
inline bool descends(Span<const AttentionSegment> segments, int64_t segment, int64_t ancestor) {
  int64_t s = segment;
  while (s > ancestor) s = segments[s].parent;
  return s == ancestor;
}

/// Calls body(slot, item) for all items. A slot is one thread's own meanwhile.
template <class Body>
void parallel_slots(const Context& ctx, int64_t slots, int64_t items, Body&& body) {
  std::atomic<int64_t> next = 0;
  parallel_items(ctx, slots, [&](int64_t slot) {
    for (int64_t item = next++; item < items; item = next++) body(slot, item);
  });
}

}  // namespace orrery::kernels::cpu
