// Views of row-major memory. They own nothing; the memory may be on any device.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

namespace orrery {

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

  T* row(int64_t r) const { return data + r * stride; }
  int64_t size() const { return rows * cols; }
  Mat row_range(int64_t begin, int64_t end) const {
    return {row(begin), end - begin, cols, stride};
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
  T* at(int64_t token, int64_t head) const { return data + token * stride + head * head_dim; }
};

}  // namespace orrery
