#include "kernels/cpu/rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rows.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void round_row(Bf16* to, const float* from, int64_t count) {
  for_each16(count, [&](int64_t i, auto io) HWY_ATTR { io.store(to + i, io.load(from + i)); });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <cstring>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/host.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(round_row);

namespace {

/// Row i of `to` becomes row source(i) of `from`.
template <class Source>
void copy_each_row(const Context& ctx, const ActMat& to, const ConstActMat& from,
                   const Source& source) {
  if (to.cols == 0) return;
  const size_t bytes = to.cols * dtype_bytes(to.dtype);
  parallel_for(ctx, to.rows, kStreamGrain / to.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = source(i);
      std::memcpy(to.row_range(i, i + 1).data, from.row_range(at, at + 1).data, bytes);
    }
  });
}

}  // namespace

void copy_rows(const Context& ctx, const CopyRows& op) {
  copy_each_row(ctx, op.to, op.from, [](int64_t i) { return i; });
}

void round_rows(const Context& ctx, const RoundRows& op) {
  const auto to = op.to.as<Bf16>();
  const int64_t grain = kStreamGrain / std::max<int64_t>(to.cols, 1);
  parallel_for(ctx, to.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      HWY_DYNAMIC_DISPATCH(round_row)(row(to, i), row(op.from, i), to.cols);
  });
}

void gather_rows(const Context& ctx, const GatherRows& op) {
  copy_each_row(ctx, op.to, op.from, [&](int64_t i) { return int64_t{op.rows.data[i]}; });
}

void scatter_add_rows(const Context& ctx, const ScatterAddRows& op) {
  parallel_columns(ctx, op.from.rows, op.from.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < op.from.rows; ++i) {
      float* sum = row(op.to, op.rows.data[i]) + begin;
      add_elements(sum, sum, row(op.from, i) + begin, end - begin);
    }
  });
}

// From the last row to the first: a row is overwritten after all that read it.
void spread_rows(const Context& ctx, const SpreadRows& op) {
  const Span<const int32_t> source = host(op.source);
  parallel_columns(ctx, op.y.rows, op.y.cols, [&](int64_t begin, int64_t end) {
    for (int64_t i = op.y.rows - 1; i >= 0; --i) {
      const int64_t from = source[i] - source[0];
      if (from == i) continue;
      std::memcpy(row(op.y, i) + begin, row(op.y, from) + begin, (end - begin) * sizeof(float));
    }
  });
}

}  // namespace orrery::kernels::cpu
#endif
