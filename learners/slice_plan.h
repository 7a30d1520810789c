// Which rank of a dp axis owns which elements of a flat buffer (ZeRO, Rajbhandari et
// al. 2020).
//
// The buffer is cut into buckets and every bucket into one slice per rank. A bucket is
// what is reduced at a time while the rest of the gradient is still being computed; as
// each bucket has a slice for every rank, all ranks then receive at the same time, each
// its share.
#pragma once

#include <cstdint>
#include <vector>

#include "core/extent.h"

namespace orrery::learners {

struct SlicePlan {
  /// The buckets, rising and without gaps. Each is a list of ranks + 1 offsets into the
  /// flat buffer. Rank r's slice of it begins at offset r and ends before offset r + 1;
  /// it may be empty.
  std::vector<std::vector<int64_t>> buckets;

  int64_t elements() const { return buckets.empty() ? 0 : buckets.back().back(); }
  int ranks() const { return buckets.empty() ? 1 : static_cast<int>(buckets.front().size()) - 1; }
  /// What a rank owns, rising; adjacent slices are one extent.
  std::vector<Extent> extents(int rank) const;
  std::vector<std::vector<Extent>> all_extents() const;  ///< of every rank
};

/// Cuts [0, elements) at multiples of `chunk` into at most 64 buckets (one for a single
/// rank) whose slices are equal but for the last bucket's.
SlicePlan plan_slices(int64_t elements, int64_t chunk, int ranks);

}  // namespace orrery::learners
