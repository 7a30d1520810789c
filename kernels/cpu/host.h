// How the CPU's kernels reach the elements of device views. Device memory is host
// memory to these kernels, and to nothing outside kernels/cpu/.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "core/tensor.h"

namespace orrery::kernels::cpu {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// Row r: m.cols elements.
template <class T>
T* row(Mat<T> m, int64_t r) {
  return m.data + r * m.stride;
}

/// The vector of head `head` at token t: h.head_dim elements.
template <class T>
T* at(Heads<T> h, int64_t t, int64_t head) {
  return h.data + t * h.stride + head * h.head_dim;
}

/// The elements of v.
template <class T>
Span<T> host(Vec<T> v) {
  return {v.data, v.size};
}

}  // namespace orrery::kernels::cpu
