#include "kernels/cpu/embedding.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/embedding.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/host.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

/// to += 0 + the numbered rows in order.
void add_sum_of_rows(float* to, Mat<const float> from, Span<const int64_t> rows) {
  for_each16(from.cols, [&](int64_t i, auto io) HWY_ATTR {
    Lanes sum = set16(0.0f);
    for (const int64_t r : rows) sum = add(sum, io.load(cpu::row(from, r) + i));
    io.store(to + i, add(io.load(to + i), sum));
  });
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <algorithm>
#include <numeric>

#include "kernels/cpu/columns.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/scratch.h"

namespace orrery::kernels::cpu {
HWY_EXPORT(add_sum_of_rows);

namespace {

/// All rows' numbers, each run's by token, and of a token rising.
Span<const int64_t> rows_by_token(ScratchScope& scratch, Span<const int32_t> ids,
                                  Span<const int64_t> run_ends) {
  int64_t* const rows = scratch.alloc<int64_t>(ids.size());
  std::iota(rows, rows + ids.size(), int64_t{0});
  int64_t begin = 0;
  for (const int64_t end : run_ends) {
    std::sort(rows + begin, rows + end,
              [&](int64_t a, int64_t b) { return ids[a] != ids[b] ? ids[a] < ids[b] : a < b; });
    begin = end;
  }
  return {rows, ids.size()};
}

/// body(rows) for each run and token in it, where rows are the token's in the run.
template <class Body>
void for_each_token(Span<const int64_t> rows, Span<const int32_t> ids, Span<const int64_t> run_ends,
                    const Body& body) {
  int64_t begin = 0;
  for (const int64_t run_end : run_ends) {
    while (begin < run_end) {
      int64_t end = begin + 1;
      while (end < run_end && ids[rows[end]] == ids[rows[begin]]) ++end;
      body(rows.subspan(begin, end - begin));
      begin = end;
    }
  }
}

}  // namespace

void embedding_forward(const Context& ctx, const EmbeddingForward& op) {
  gather_rows(ctx, {.to = op.out, .from = op.table, .rows = op.ids});
}

void embedding_backward(const Context& ctx, const EmbeddingBackward& op) {
  if (op.run_ends.empty()) {
    scatter_add_rows(ctx, {.to = op.dtable, .from = op.dout, .rows = op.ids});
    return;
  }
  const Span<const int32_t> ids = host(op.ids);
  ScratchScope scratch;
  const Span<const int64_t> rows = rows_by_token(scratch, ids, op.run_ends);
  parallel_columns(ctx, op.dout.rows, op.dout.cols, [&](int64_t begin, int64_t end) {
    const Mat<const float> from = op.dout.col_range(begin, end);
    for_each_token(rows, ids, op.run_ends, [&](Span<const int64_t> of_token) {
      float* const to = row(op.dtable, ids[of_token[0]]) + begin;
      HWY_DYNAMIC_DISPATCH(add_sum_of_rows)(to, from, of_token);
    });
  });
}

}  // namespace orrery::kernels::cpu
#endif
