// Checks of what callers of a communicator pass.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "core/error.h"
#include "core/extent.h"

namespace orrery::comm {

inline void check_extents(std::span<const std::vector<Extent>> owned, int ranks, size_t elements) {
  ORRERY_CHECK(owned.size() == static_cast<size_t>(ranks),
               "all_gather: extents of {} ranks, there are {}", owned.size(), ranks);
  for (const auto& extents : owned) {
    for (const Extent& e : extents) {
      ORRERY_CHECK(0 <= e.begin && e.begin <= e.end && static_cast<size_t>(e.end) <= elements,
                   "all_gather: [{}, {}) leaves the buffer of {} elements", e.begin, e.end,
                   elements);
    }
  }
}

inline void check_offsets(std::span<const int64_t> offsets, int ranks, size_t elements) {
  ORRERY_CHECK(offsets.size() == static_cast<size_t>(ranks) + 1,
               "all_to_all: {} offsets for {} ranks", offsets.size(), ranks);
  ORRERY_CHECK(offsets.front() >= 0 && std::is_sorted(offsets.begin(), offsets.end()) &&
                   static_cast<size_t>(offsets.back()) <= elements,
               "all_to_all: offsets leave the buffer of {} elements", elements);
}

}  // namespace orrery::comm
