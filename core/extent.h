// Stretches of the elements of a flat buffer.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>

#include "core/span.h"
#include "core/tensor.h"

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

/// Where the elements of a flat buffer are while it is being written. Either the whole
/// buffer is in memory, or a window that shows one region after another: it holds the
/// first region all the time and, behind it, one of the other regions. When the owner
/// of the window is told that a region is final, it takes it out, and its place is for
/// the next one, which is written over it.
class FlatView {
 public:
  /// A whole buffer is a view of itself.
  FlatView(Vec<float> whole) : data_(whole.data), size_(whole.size) {}
  /// regions: rising bounds, from 0 to the flat buffer's size. window:
  /// window_size(regions) elements. Neither is copied.
  FlatView(Vec<float> window, std::span<const int64_t> regions)
      : data_(window.data), size_(regions.back()), regions_(regions) {}

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
  /// All that is in memory: the whole buffer, or the window.
  Vec<float> memory() const { return {data_, regions_.empty() ? size_ : window_size(regions_)}; }

 private:
  float* data_;
  int64_t size_;
  std::span<const int64_t> regions_;  // empty: whole
};

/// The elements of `extent`. REQUIRES: they lie inside `flat`.
template <class T>
Span<T> elements_of(Span<T> flat, const Extent& extent) {
  return flat.subspan(extent.begin, extent.size());
}
template <class T>
Vec<T> elements_of(Vec<T> flat, const Extent& extent) {
  return flat.part(extent.begin, extent.size());
}
template <class T>
std::span<T> elements_of(std::span<T> flat, const Extent& extent) {
  return elements_of(Span<T>(flat), extent);
}

}  // namespace orrery
