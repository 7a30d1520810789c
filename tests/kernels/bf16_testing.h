// bf16 matrices for the tests of ops on rows, and rounding in scalar code.
#pragma once

#include <vector>

#include "core/dtype.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels::kernel_testing {

inline float rounded(float value) { return to_f32(to_bf16(value)); }

inline std::vector<float> rounded(std::vector<float> values) {
  for (float& value : values) value = rounded(value);
  return values;
}

/// Every element rounded, the padding included.
inline Matrix rounded(Matrix m) {
  m.values = rounded(m.values);
  return m;
}

/// A Matrix's elements in bf16, padded as it is.
struct Bf16Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<Bf16> elements;

  explicit Bf16Matrix(const Matrix& from) : rows(from.rows), cols(from.cols) {
    for (const float value : from.values) elements.push_back(to_bf16(value));
  }
  Bf16Matrix(int64_t r, int64_t c) : Bf16Matrix(Matrix(r, c)) {}
  Mat<Bf16> mat() { return {elements.data(), rows, cols, cols + Matrix::kPadding}; }
  Mat<const Bf16> mat() const { return {elements.data(), rows, cols, cols + Matrix::kPadding}; }
  std::vector<float> values() const {
    std::vector<float> all;
    for (const Bf16 element : elements) all.push_back(to_f32(element));
    return all;
  }
};

/// The rows of a case table that are of `dtype`.
template <class Row>
std::vector<Row> of_type(std::vector<Row> rows, DType dtype) {
  std::erase_if(rows, [&](const Row& row) { return row.dtype != dtype; });
  return rows;
}

}  // namespace orrery::kernels::kernel_testing
