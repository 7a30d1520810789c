// Views of device memory, row-major. They own nothing and give no element: on the host
// nothing may follow their pointers but kernels/cpu/ and the uploads and downloads of
// core/transfer.h. Span<T> (core/span.h) is the view of host memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <type_traits>

#include "core/dtype.h"
#include "core/error.h"
#include "core/span.h"

namespace orrery {

/// `size` elements of T, contiguous.
template <class T>
struct Vec {
  T* data = nullptr;
  int64_t size = 0;

  Vec() = default;
  Vec(T* d, int64_t count) : data(d), size(count) {}
  operator Vec<const T>() const requires(!std::is_const_v<T>) { return {data, size}; }

  bool empty() const { return size == 0; }
  /// Elements [begin, begin + count). REQUIRES: they lie inside.
  Vec part(int64_t begin, int64_t count) const { return {data + begin, count}; }
};

/// A matrix view: element (r, c) is data[r * stride + c], stride >= cols.
template <class T>
struct Mat {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  Mat() = default;
  Mat(T* d, int64_t r, int64_t c) : data(d), rows(r), cols(c), stride(c) {}
  Mat(T* d, int64_t r, int64_t c, int64_t s) : data(d), rows(r), cols(c), stride(s) {}
  operator Mat<const T>() const requires(!std::is_const_v<T>) { return {data, rows, cols, stride}; }

  int64_t size() const { return rows * cols; }
  Mat row_range(int64_t begin, int64_t end) const {
    return {data + begin * stride, end - begin, cols, stride};
  }
  Mat col_range(int64_t begin, int64_t end) const {
    return {data + begin, rows, end - begin, stride};
  }
};

/// [tokens, heads, head_dim] inside rows of `stride` elements: element (t, h, d) is
/// data[t * stride + h * head_dim + d].
template <class T>
struct Heads {
  T* data = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t stride = 0;

  Heads() = default;
  Heads(T* d, int64_t t, int64_t h, int64_t hd, int64_t s)
      : data(d), tokens(t), heads(h), head_dim(hd), stride(s) {}
  operator Heads<const T>() const requires(!std::is_const_v<T>) {
    return {data, tokens, heads, head_dim, stride};
  }

  int64_t size() const { return tokens * heads * head_dim; }
};

/// The columns of a matrix as `heads` vectors a row. REQUIRES: `heads` divides m.cols.
template <class T>
Heads<T> as_heads(Mat<T> m, int64_t heads) {
  return {m.data, m.rows, heads, m.cols / heads, m.stride};
}

/// The elements of a matrix. REQUIRES: its rows follow one another without gaps.
template <class T>
Vec<T> as_vec(Mat<T> m) {
  ORRERY_CHECK(m.stride == m.cols, "rows of {} elements at a stride of {}", m.cols, m.stride);
  return {m.data, m.size()};
}

/// Element types of activations.
template <class T>
inline constexpr bool kIsElement =
    std::is_same_v<std::remove_const_t<T>, float> || std::is_same_v<std::remove_const_t<T>, Bf16>;

/// A matrix of activations, whose element type, f32 or bf16, is known at run time.
/// Element (r, c) is element r * stride + c of data.
template <bool kConst>
struct BasicActMat {
  using Pointer = std::conditional_t<kConst, const void*, void*>;
  Pointer data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  BasicActMat() = default;
  BasicActMat(Pointer d, DType type, int64_t r, int64_t c, int64_t s)
      : data(d), dtype(type), rows(r), cols(c), stride(s) {}
  template <class T>
  requires kIsElement<T> BasicActMat(Mat<T> m)
      : data(m.data),
        dtype(kDTypeOf<std::remove_const_t<T>>),
        rows(m.rows),
        cols(m.cols),
        stride(m.stride) {}
  operator BasicActMat<true>() const requires(!kConst) { return {data, dtype, rows, cols, stride}; }

  int64_t size() const { return rows * cols; }
  BasicActMat row_range(int64_t begin, int64_t end) const {
    return {element(begin * stride), dtype, end - begin, cols, stride};
  }
  BasicActMat col_range(int64_t begin, int64_t end) const {
    return {element(begin), dtype, rows, end - begin, stride};
  }
  /// The matrix as elements of T, float or Bf16. Error where it holds others.
  template <class T>
  requires kIsElement<T> Mat<T> as()
  const {
    constexpr DType kWanted = kDTypeOf<std::remove_const_t<T>>;
    if (dtype != kWanted)
      fail("activations are {}; this op takes {}", dtype_name(dtype), dtype_name(kWanted));
    return {static_cast<T*>(data), rows, cols, stride};
  }

 private:
  Pointer element(int64_t index) const {
    using Byte = std::conditional_t<kConst, const std::byte, std::byte>;
    return static_cast<Byte*>(data) + index * static_cast<int64_t>(dtype_bytes(dtype));
  }
};
using ActMat = BasicActMat<false>;
using ConstActMat = BasicActMat<true>;

}  // namespace orrery
