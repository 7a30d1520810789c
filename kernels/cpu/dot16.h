// Products of bf16 numbers on the CPU as an H100's tensor cores compute them: chains of
// kernels/dot16.h's steps (docs/numerics.md, "Dot16").
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace orrery::kernels::cpu {

/// Inner indices of a step.
inline constexpr int64_t kDot16 = 16;
/// Columns that are computed side by side: an n that is a multiple of it is fastest.
inline constexpr int64_t kDot16Panel = 64;

/// c[i][j] = the dot16 chain over k of a[i][k] b[k][j], from c[i][j] or from 0. The
/// last group of k is padded with zeros. Element (i, k) of a is a[i * a_row + k *
/// a_inner], (k, j) of b is b[k * b_inner + j * b_column]: strides may be anything. c
/// may not overlap a or b.
struct Dot16Product {
  int64_t m = 0, n = 0, k = 0;
  const Bf16* a = nullptr;
  int64_t a_row = 0, a_inner = 1;
  const Bf16* b = nullptr;
  int64_t b_inner = 0, b_column = 1;
  /// Where b is cut into squares: from (k, j) to (k + 64, j), and to (k, j + 64), in
  /// place of 64 times the strides.
  int64_t b_inner64 = 0, b_column64 = 0;
  float* c = nullptr;
  int64_t c_stride = 0;
  bool accumulate = false;
};
/// Where element (k, j) of op.b lies.
inline const Bf16* dot16_b(const Dot16Product& op, int64_t k, int64_t j) {
  const int64_t inner64 = op.b_inner64 != 0 ? op.b_inner64 : kDot16Panel * op.b_inner;
  const int64_t column64 = op.b_column64 != 0 ? op.b_column64 : kDot16Panel * op.b_column;
  return op.b + k / kDot16Panel * inner64 + k % kDot16Panel * op.b_inner +
         j / kDot16Panel * column64 + j % kDot16Panel * op.b_column;
}

/// In the calling thread, whose floating-point unit must not flush subnormal numbers
/// (kernels/cpu/flush.h).
void dot16_product(const Dot16Product& op);

}  // namespace orrery::kernels::cpu
