#include "learners/slice_plan.h"

#include <algorithm>

#include "core/error.h"

namespace orrery::learners {
namespace {

constexpr int64_t kMaxBuckets = 64;

}  // namespace

std::vector<Extent> SlicePlan::extents(int rank) const {
  std::vector<Extent> result;
  for (const auto& offsets : buckets) {
    const Extent slice{offsets[rank], offsets[rank + 1]};
    if (slice.size() == 0) continue;
    if (!result.empty() && result.back().end == slice.begin) {
      result.back().end = slice.end;
    } else {
      result.push_back(slice);
    }
  }
  return result;
}

std::vector<std::vector<Extent>> SlicePlan::all_extents() const {
  std::vector<std::vector<Extent>> result;
  for (int r = 0; r < ranks(); ++r) result.push_back(extents(r));
  return result;
}

SlicePlan plan_slices(int64_t elements, int64_t chunk, int ranks) {
  ORRERY_CHECK(elements >= 0 && chunk > 0 && ranks > 0, "{} elements in chunks of {} over {} ranks",
               elements, chunk, ranks);
  const int64_t chunks = (elements + chunk - 1) / chunk;
  // Chunks of each rank in a whole bucket.
  const int64_t share =
      std::max<int64_t>(1, (chunks + kMaxBuckets * ranks - 1) / (kMaxBuckets * ranks));
  const int64_t bucket = ranks == 1 ? std::max<int64_t>(chunks, 1) : share * ranks;
  SlicePlan plan;
  for (int64_t first = 0; first == 0 || first < chunks; first += bucket) {
    const int64_t count = std::min(bucket, chunks - first);
    std::vector<int64_t> offsets;
    for (int r = 0; r <= ranks; ++r) {
      // Without count * r: no overflow whatever the sizes.
      const int64_t before = count / ranks * r + count % ranks * r / ranks;
      offsets.push_back(std::min((first + before) * chunk, elements));
    }
    plan.buckets.push_back(std::move(offsets));
  }
  return plan;
}

}  // namespace orrery::learners
