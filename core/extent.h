// Stretches of the elements of a flat buffer.
#pragma once

#include <cstdint>
#include <functional>
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

/// Told that a buffer is final from element `begin` on: a backward pass knows the last layer's gradient
/// first, and tells falling numbers.
using FinalFrom = std::function<void(int64_t begin)>;

template <class T>
std::span<T> part_of(std::span<T> flat, const Extent& extent) {
  return flat.subspan(static_cast<size_t>(extent.begin), static_cast<size_t>(extent.size()));
}

}  // namespace orrery
