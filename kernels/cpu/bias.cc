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

/// sum of columns [begin, end) += the rows in order.
template <class T>
HWY_INLINE void add_columns(float* sum, Mat<const T> rows, int64_t begin, int64_t end) {
  for (int64_t r = 0; r < rows.rows; ++r) {
    const T* const row = cpu::row(rows, r) + begin;
    float* const to = sum + begin;
    for_each16(end - begin, [&](int64_t i, auto io) HWY_ATTR {
      io.store(to + i, add(io.load(to + i), io.load(row + i)));
    });
  }
}

void add_columns_f32(float* sum, Mat<const float> rows, int64_t begin, int64_t end) {
  add_columns(sum, rows, begin, end);
}
void add_columns_bf16(float* sum, Mat<const Bf16> rows, int64_t begin, int64_t end) {
  add_columns(sum, rows, begin, end);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>

#include "core/parallel.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(add_columns_f32);
HWY_EXPORT(add_columns_bf16);

void bias_backward(const Context& ctx, const BiasBackward& op) {
  constexpr int64_t kColumns = 256;
  const int64_t cols = op.dy.cols;
  // Each thread takes columns of its own, so the order of a sum is that of the rows.
  parallel_for(ctx, (cols + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kColumns, last = std::min(end * kColumns, cols);
    if (!op.accumulate) std::fill(op.db.data + first, op.db.data + last, 0.0f);
    if (op.dy.dtype == DType::kBF16) {
      HWY_DYNAMIC_DISPATCH(add_columns_bf16)(op.db.data, op.dy.as<const Bf16>(), first, last);
    } else {
      HWY_DYNAMIC_DISPATCH(add_columns_f32)(op.db.data, op.dy.as<const float>(), first, last);
    }
  });
}

}  // namespace orrery::kernels::cpu
#endif
