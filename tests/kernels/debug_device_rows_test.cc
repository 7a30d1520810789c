// The ops on rows and on flat arrays over memory that is closed to the host: a check
// that followed a pointer into it would end the process. The bits are the CPU's.
#include <gtest/gtest.h>

#include "kernels/elementwise.h"
#include "kernels/embedding.h"
#include "kernels/optimizer.h"
#include "kernels/reductions.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "tests/kernels/device_arrays.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using kernel_testing::DeviceArrays;
using kernel_testing::same_bits;

constexpr int64_t kTokens = 6, kHeads = 3, kDim = 8, kCols = kHeads * kDim, kVocab = 11;

void run_norms(DeviceArrays& a) {
  const Mat<float> x = a.mat(kTokens, kCols), y = a.mat(kTokens, kCols), h = a.mat(kTokens, kCols);
  const Vec<float> rstd = a.vec(kTokens * kHeads), weight = a.vec(kDim), dweight = a.vec(kDim);
  rmsnorm_forward(a.ctx(),
                  {.y = y, .rstd = rstd, .x = x, .weight = weight, .eps = 1e-5f, .heads = kHeads});
  rmsnorm_backward(a.ctx(), {.dx = h,
                             .dweight = dweight,
                             .dy = y,
                             .x = x,
                             .rstd = rstd,
                             .weight = weight,
                             .accumulate = true,
                             .heads = kHeads});
  rmsnorm_residual_forward(a.ctx(), {.h = h,
                                     .y = y,
                                     .x = x,
                                     .delta = a.mat(kTokens, kCols),
                                     .weight = a.vec(kCols),
                                     .eps = 1e-5f});
}

void run_rows(DeviceArrays& a) {
  const Mat<float> table = a.mat(kVocab, kCols), x = a.mat(kTokens, kCols);
  const Vec<const int32_t> ids = a.ids({3, 10, 3, 0, 7, 3});
  embedding_forward(a.ctx(), {.out = x, .table = table, .ids = ids});
  embedding_backward(a.ctx(), {.dtable = table, .dout = x, .ids = ids});
  gather_rows(a.ctx(), {.to = x, .from = table, .rows = ids});
  scatter_add_rows(a.ctx(), {.to = table, .from = x, .rows = ids});
  copy_rows(a.ctx(), {.to = a.mat(kTokens, kCols), .from = x});
  spread_rows(a.ctx(), {.y = x, .source = a.ids({4, 4, 5, 6, 6, 7})});

  const RopeTable rope = build_rope_table(a.ctx().device, {.head_dim = kDim, .scaling = {}}, 100);
  rope_backward(
      a.ctx(),
      {.dx = x,
       .heads = kHeads,
       .rotation = {.positions = a.ids({0, 1, 2, 99, 64, 5}), .cos = rope.cos, .sin = rope.sin}});
  const Mat<float> out = a.mat(kTokens, kCols / 2);
  swiglu_forward(a.ctx(), {.out = out, .gate_up = x});
  swiglu_backward(a.ctx(), {.d_gate_up = x, .dout = out, .gate_up = x});
}

void run_flat(DeviceArrays& a, std::vector<double>& numbers) {
  constexpr int64_t kSize = kNormChunk + 7;
  const Vec<float> w = a.vec(kSize), grad = a.vec(kSize), m = a.vec(kSize), v = a.vec(kSize);
  fill(a.ctx(), {.y = m});
  fill(a.ctx(), {.y = v, .value = 0.25f});
  const std::vector<const float*> parts = {w.data, grad.data};
  nested_sum(a.ctx(), {.out = grad, .parts = parts});
  tree_sum(a.ctx(), {.out = grad, .parts = parts});
  sum_squares_chunks(a.ctx(), {.sums = a.vec(2), .x = grad});
  adamw_step(a.ctx(), {.w = w, .m = m, .v = v, .grad = grad, .t = 1});
  const FletcherSums sums = checksum(a.ctx(), {.x = w});
  numbers = {static_cast<double>(sums.low), static_cast<double>(sums.high),
             max_abs(a.ctx(), {.x = w})};
}

TEST(DebugDeviceRows, TheOpsFollowNoPointerOnTheHost) {
  std::vector<float> values[2];
  std::vector<double> numbers[2];
  for (int i = 0; i < 2; ++i) {
    DeviceArrays arrays({.device = {i == 0 ? DeviceType::kCpu : DeviceType::kDebug}});
    run_norms(arrays);
    run_rows(arrays);
    run_flat(arrays, numbers[i]);
    values[i] = arrays.values();
  }
  EXPECT_TRUE(same_bits(values[1], values[0]));
  EXPECT_EQ(numbers[1], numbers[0]);
}

}  // namespace
}  // namespace orrery::kernels
