// Stretches of the elements of a flat buffer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace orrery {

/// Elements [begin, end).
struct Extent {
  int64_t begin = 0, end = 0;

  int64_t size() const { return end - begin; }
  friend bool operator==(const Extent&, const Extent&) = default;
};

inline int64_t total_size(std::span<const Extent> extents) {
  int64_t total = 0;
  for (const Extent& e : extents) total += e.size();
  return total;
}

/// Where a flat buffer's elements are while it is being written: all there, or region
/// by region in a window. A window holds the first region throughout and one of the
/// others at a time, behind it; the owner takes a region out (and zeroes its place)
/// when it is told that the region is final.
class FlatView {
 public:
  FlatView(std::span<float>
               whole)  // NOLINT(google-explicit-constructor): a whole buffer is a view of itself
      : data_(whole.data()), size_(static_cast<int64_t>(whole.size())) {}
  /// regions: rising bounds, from 0 to the flat buffer's size. window:
  /// window_size(regions) elements. Neither is copied.
  FlatView(std::span<float> window, std::span<const int64_t> regions)
      : data_(window.data()), size_(regions.back()), regions_(regions) {}

  static int64_t window_size(std::span<const int64_t> regions) {
    int64_t largest = 0;
    for (size_t i = 2; i < regions.size(); ++i)
      largest = std::max(largest, regions[i] - regions[i - 1]);
    return regions[1] + largest;
  }

  /// Element `offset` and those behind it, to the end of its region.
  float* at(int64_t offset) const {
    if (regions_.empty() || offset < regions_[1]) return data_ + offset;
    const auto next = std::upper_bound(regions_.begin() + 1, regions_.end(), offset);
    return data_ + regions_[1] + (offset - *(next - 1));
  }
  int64_t size() const { return size_; }  ///< of the flat buffer

 private:
  float* data_;
  int64_t size_;
  std::span<const int64_t> regions_;  // empty: whole
};

template <class T>
std::span<T> part_of(std::span<T> flat, const Extent& extent) {
  return flat.subspan(static_cast<size_t>(extent.begin), static_cast<size_t>(extent.size()));
}

}  // namespace orrery
