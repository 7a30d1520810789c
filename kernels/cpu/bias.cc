#include "kernels/cpu/bias.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/bias.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// sums += the rows in order.
template <class T>
HWY_INLINE void add_rows(float* sums, Mat<const T> rows) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T* const row = cpu::row(rows, r);
    for_each16(rows.cols, [&](int64_t i, auto io) HWY_ATTR {
      io.store(sums + i, add(io.load(sums + i), io.load(row + i)));
    });
  }
}

void add_rows_f32(float* sums, Mat<const float> rows) { add_rows(sums, rows); }
void add_rows_bf16(float* sums, Mat<const Bf16> rows) { add_rows(sums, rows); }

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>

#include "core/parallel.h"
#include "kernels/cpu/columns.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(add_rows_f32);
HWY_EXPORT(add_rows_bf16);

void bias_backward(const Context& ctx, const BiasBackward& op) {
  constexpr int64_t kColumns = 256;
  const int64_t cols = op.dy.cols;
  const auto add_rows = [&](float* sums, Rows rows, int64_t begin, int64_t end) {
    const ConstActMat dy = op.dy.row_range(rows.begin, rows.end).col_range(begin, end);
    dy.dtype == DType::kBF16 ? HWY_DYNAMIC_DISPATCH(add_rows_bf16)(sums, dy.as<const Bf16>())
                             : HWY_DYNAMIC_DISPATCH(add_rows_f32)(sums, dy.as<const float>());
  };
  // Each thread takes columns of its own, so the order of a sum is that of the rows.
  parallel_for(ctx, (cols + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kColumns, last = std::min(end * kColumns, cols);
    if (!op.accumulate) std::fill(op.db.data + first, op.db.data + last, 0.0f);
    add_runs(op.db.data, op.run_ends, op.dy.rows, first, last, add_rows);
  });
}

}  // namespace orrery::kernels::cpu
#endif
