#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/dot16_product.cc"
#include "kernels/cpu/targets.h"
// targets.h first.
#include "hwy/foreach_target.h"
// foreach_target.h first.
#include "kernels/cpu/dot16-inl.h"
#include "kernels/cpu/dot16_pack-inl.h"
#include "kernels/cpu/simd-inl.h"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/cpu/dot16.h"
#include "kernels/cpu/scratch.h"
#include "kernels/dot16.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {
namespace dot16 {

/// Rows that a packed panel of B is used for, and groups of 16 of their elements that
/// are packed at once.
inline constexpr int64_t kRows = 64, kRowGroups = 2048;

/// The sums that a product starts from, as a step leaves them: no -0, and no NaN but
/// the model's.
inline void load_first(const float* c, int64_t count, bool accumulate, float* sums) {
  if (!accumulate) return void(std::fill_n(sums, count, 0.0f));
  for (int64_t j = 0; j < count; ++j)
    sums[j] = c[j] != c[j] ? std::bit_cast<float>(kDotNan) : c[j] == 0.0f ? 0.0f : c[j];
}

/// Rows [first, first + rows) of A, inner indices [from, to): all rows of a group, then
/// those of the next.
inline void pack_rows(const cpu::Dot16Product& op, int64_t first, int64_t rows, int64_t from,
                      int64_t to, Row* packed) {
  const int64_t groups = (to - from + kStep - 1) / kStep;
  Bf16 copy[kStep][kStep];
  for (int64_t i = 0; i < rows; i += kStep) {
    const int64_t some = std::min<int64_t>(kStep, rows - i);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t k = from + g * kStep, count = std::min<int64_t>(kStep, to - k);
      const Bf16* const a = op.a + (first + i) * op.a_row + k * op.a_inner;
      const bool copied = op.a_inner != 1 || count < kStep;
      if (copied) {
        if (count < kStep) std::fill_n(copy[0], kStep * kStep, Bf16{});
        for (int64_t x = 0; x < count; ++x) {
          for (int64_t r = 0; r < some; ++r) copy[r][x] = a[r * op.a_row + x * op.a_inner];
        }
      }
      for (int64_t r = 0; r < some; ++r)
        pack_row(copied ? copy[r] : a + r * op.a_row, packed[g * rows + i + r]);
    }
  }
}

/// The panel of columns from `column` on: inner indices [from, to) for the packed rows.
inline void multiply_panel(const cpu::Dot16Product& op, int64_t first, int64_t rows, int64_t from,
                           int64_t to, int64_t column, const Row* packed) {
  const int64_t groups = (to - from + kStep - 1) / kStep;
  const int64_t columns = std::min<int64_t>(kPanel, op.n - column);
  float* const c = op.c + first * op.c_stride + column;
  // A copy, as rows may be as far apart as caches are wide.
  alignas(64) float sums[kRows][kPanel];
  Columns b;
  for (int64_t i = 0; i < rows; ++i) {
    if (from == 0) {
      load_first(c + i * op.c_stride, columns, op.accumulate, sums[i]);
    } else {
      std::copy_n(c + i * op.c_stride, columns, sums[i]);
    }
    std::fill_n(sums[i] + columns, kPanel - columns, 0.0f);
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t k = from + g * kStep, count = std::min<int64_t>(kStep, to - k);
    pack_columns({.from = cpu::dot16_b(op, k, column),
                  .inner = op.b_inner,
                  .column = op.b_column,
                  .count = count,
                  .columns = columns},
                 b);
    for (int64_t i = 0; i < rows; ++i) {
      const RawRow raw{op.a + (first + i) * op.a_row + k * op.a_inner, op.a_inner, count};
      step_row(packed[g * rows + i], raw, b, sums[i]);
    }
  }
  for (int64_t i = 0; i < rows; ++i) std::copy_n(sums[i], columns, c + i * op.c_stride);
}

void product(const cpu::Dot16Product& op) {
  if (op.k == 0 && !op.accumulate) {
    for (int64_t i = 0; i < op.m; ++i) std::fill_n(op.c + i * op.c_stride, op.n, 0.0f);
  }
  if (op.m == 0 || op.n == 0 || op.k == 0) return;
  const int64_t most_rows = std::min(op.m, kRows);
  const int64_t most_inner =
      std::min((op.k + kStep - 1) / kStep, kRowGroups / most_rows) * int64_t{kStep};
  cpu::ScratchScope scratch;
  Row* const packed = scratch.alloc<Row>(most_rows * most_inner / kStep);
  for (int64_t i = 0; i < op.m; i += most_rows) {
    const int64_t rows = std::min(most_rows, op.m - i);
    for (int64_t k = 0; k < op.k; k += most_inner) {
      const int64_t end = std::min(k + most_inner, op.k);
      pack_rows(op, i, rows, k, end, packed);
      for (int64_t j = 0; j < op.n; j += kPanel) multiply_panel(op, i, rows, k, end, j, packed);
    }
  }
}

}  // namespace dot16

void dot16_product_on(const cpu::Dot16Product& op) { dot16::product(op); }

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace orrery::kernels::cpu {

HWY_EXPORT(dot16_product_on);

void dot16_product(const Dot16Product& op) { HWY_DYNAMIC_DISPATCH(dot16_product_on)(op); }

}  // namespace orrery::kernels::cpu
#endif  // HWY_ONCE
