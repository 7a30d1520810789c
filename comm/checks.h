// Checks of what callers of a communicator pass.
#pragma once

#include <algorithm>
#include <iterator>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/extent.h"
#include "core/span.h"

namespace orrery::comm {

inline void check_extents(Span<const std::vector<Extent>> owned, int ranks, int64_t elements) {
  ORRERY_CHECK(owned.size() == ranks, "all_gather: extents of {} ranks, there are {}", owned.size(),
               ranks);
  for (const auto& extents : owned) {
    for (const Extent& e : extents) {
      ORRERY_CHECK(0 <= e.begin && e.begin <= e.end && e.end <= elements,
                   "all_gather: [{}, {}) leaves the buffer of {} elements", e.begin, e.end,
                   elements);
    }
  }
}

inline void check_offsets(Span<const int64_t> offsets, int ranks, int64_t elements) {
  ORRERY_CHECK(offsets.size() == ranks + 1, "all_to_all: {} offsets for {} ranks", offsets.size(),
               ranks);
  ORRERY_CHECK(offsets.front() >= 0 && std::is_sorted(offsets.begin(), offsets.end()) &&
                   offsets.back() <= elements,
               "all_to_all: offsets leave the buffer of {} elements", elements);
}

}  // namespace orrery::comm
