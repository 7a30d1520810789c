// The matrix products of linear layers on the device cpu-dot16 have the bits of
// docs/numerics.md's chains, whatever the instruction set and the number of threads,
// and however a batch is cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "kernels/dot16.h"
#include "kernels/matmul.h"
#include "kernels/numerics.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/matmul_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using kernel_testing::Bf16Matrix;
using kernel_testing::expect_error;
using kernel_testing::kNan;
using kernel_testing::Matrix;
using kernel_testing::random_vector;
using kernel_testing::rounded;
using kernel_testing::same_bits;
using kernel_testing::vec;

constexpr Device kDevice{DeviceType::kCpu, 0, Bf16Sums::kDot16};

/// A chain over [begin, end) of products of numbers that are bf16 already.
template <class A, class B>
float chain(float sum, int64_t begin, int64_t end, const A& a, const B& b) {
  auto result = std::bit_cast<uint32_t>(sum);
  for (int64_t group = begin; group < end; group += 16) {
    uint16_t x[16] = {}, y[16] = {};
    for (int64_t k = group; k < std::min(group + 16, end); ++k) {
      x[k - group] = to_bf16(a(k)).bits;
      y[k - group] = to_bf16(b(k)).bits;
    }
    result = dot_step(x, y, result, kDot16Rz25);
  }
  return std::bit_cast<float>(result);
}

/// As weights are rounded: to nearest, halves away from zero.
Matrix rounded_as_weight(Matrix m) {
  for (float& x : m.values) x = bf16_to_f32(f32_to_bf16_half_away(x));
  return m;
}

void add_weight_gradient(Matrix& dw, const Matrix& dy, const Matrix& x, int64_t begin,
                         int64_t end) {
  for (int64_t j = 0; j < dw.rows; ++j)
    for (int64_t p = 0; p < dw.cols; ++p)
      dw(j, p) = chain(
          dw(j, p), begin, end, [&](int64_t i) { return dy(i, j); },
          [&](int64_t i) { return x(i, p); });
}

/// The elements of `m`, rounded, in the padding of `before`.
std::vector<float> rounded_in(const Matrix& m, Bf16Matrix before) {
  for (int64_t i = 0; i < m.rows; ++i)
    for (int64_t j = 0; j < m.cols; ++j)
      before.mat().data[i * before.mat().stride + j] = to_bf16(m(i, j));
  return before.values();
}

struct Weight {
  Weight(const Context& ctx, const Matrix& w)
      : memory(kDevice, packed_weight_bytes(kDevice, DType::kBF16, w.rows, w.cols)),
        packed(pack_weight(ctx,
                           {.weight = w.mat(), .dtype = DType::kBF16, .memory = memory.data()})) {}
  Buffer memory;
  PackedWeight packed;
};

template <class Body>
void on_every_target(const Body& body) {
  kernel_testing::on_every_target(
      [&](const Context& ctx) { body(Context{.device = kDevice, .threads = ctx.threads}); });
}

class Dot16Matmul : public ::testing::TestWithParam<MatmulCase> {
 protected:
  const MatmulCase& c_ = GetParam();
  Matrix x_ = rounded(Matrix::random(c_.m, c_.k, c_.seed));
  Matrix dy_ = rounded(Matrix::random(c_.m, c_.n, c_.seed + 1));
  Matrix w_ = Matrix::random(c_.n, c_.k, c_.seed + 2);
  Matrix w_rounded_ = rounded_as_weight(w_);
};

TEST_P(Dot16Matmul, Forward) {
  const Matrix before = Matrix::random(c_.m, c_.n, c_.seed + 3);
  const std::vector<float> bias = c_.bias ? random_vector(c_.n, c_.seed + 4) : std::vector<float>();
  Matrix expected = before;
  for (int64_t i = 0; i < c_.m; ++i)
    for (int64_t j = 0; j < c_.n; ++j) {
      const float sum = chain(
          0.0f, 0, c_.k, [&](int64_t p) { return x_(i, p); },
          [&](int64_t p) { return w_rounded_(j, p); });
      expected(i, j) = c_.accumulate ? before(i, j) + sum : c_.bias ? sum + bias[j] : sum;
    }
  const Bf16Matrix x(x_), before_bf16(before);
  const std::vector<float> expected_bf16 = rounded_in(expected, before_bf16);
  on_every_target([&](const Context& ctx) {
    const Weight weight(ctx, w_);
    Matrix y = before;
    MatmulForward op{.y = y.mat(),
                     .x = x.mat(),
                     .weight = weight.packed,
                     .bias = vec(bias),
                     .accumulate = c_.accumulate};
    matmul_forward(ctx, op);
    EXPECT_TRUE(same_bits(y.values, expected.values));
    if (c_.accumulate) return;
    Bf16Matrix y_bf16 = before_bf16;
    op.y = y_bf16.mat();
    matmul_forward(ctx, op);
    EXPECT_TRUE(same_bits(y_bf16.values(), expected_bf16));
  });
}

TEST_P(Dot16Matmul, BackwardInput) {
  const Matrix before = Matrix::random(c_.m, c_.k, c_.seed + 3);
  Matrix expected = before;
  for (int64_t i = 0; i < c_.m; ++i)
    for (int64_t p = 0; p < c_.k; ++p) {
      const float sum = chain(
          0.0f, 0, c_.n, [&](int64_t j) { return dy_(i, j); },
          [&](int64_t j) { return w_rounded_(j, p); });
      expected(i, p) = c_.accumulate ? before(i, p) + sum : sum;
    }
  const Bf16Matrix dy(dy_), before_bf16(before);
  const std::vector<float> expected_bf16 = rounded_in(expected, before_bf16);
  on_every_target([&](const Context& ctx) {
    const Weight weight(ctx, w_);
    Matrix dx = before;
    MatmulBackwardInput op{
        .dx = dx.mat(), .dy = dy.mat(), .weight = weight.packed, .accumulate = c_.accumulate};
    matmul_backward_input(ctx, op);
    EXPECT_TRUE(same_bits(dx.values, expected.values));
    if (c_.accumulate) return;
    Bf16Matrix dx_bf16 = before_bf16;
    op.dx = dx_bf16.mat();
    matmul_backward_input(ctx, op);
    EXPECT_TRUE(same_bits(dx_bf16.values(), expected_bf16));
  });
}

TEST_P(Dot16Matmul, BackwardWeight) {
  std::vector<int64_t> run_ends(c_.run_ends.begin(), c_.run_ends.end());
  const Bf16Matrix dy(dy_), x(x_);
  for (const bool accumulate : {true, false}) {
    Matrix expected = w_, before = w_;
    for (int64_t j = 0; !accumulate && j < c_.n; ++j) {
      for (int64_t p = 0; p < c_.k; ++p) expected(j, p) = 0.0f, before(j, p) = kNan;
    }
    int64_t begin = 0;
    for (const int64_t end : run_ends.empty() ? std::vector{c_.m} : run_ends) {
      add_weight_gradient(expected, dy_, x_, begin, end);
      begin = end;
    }
    on_every_target([&](const Context& ctx) {
      Matrix dw = before;
      matmul_backward_weight(ctx, {.dw = dw.mat(),
                                   .dy = dy.mat(),
                                   .x = x.mat(),
                                   .run_ends = run_ends,
                                   .accumulate = accumulate});
      EXPECT_TRUE(same_bits(dw.values, expected.values)) << "accumulate " << accumulate;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Dot16Matmul,
                         ::testing::ValuesIn(cases_for(kPairsMatmulCases, kOracle)), CaseName());

/// Rows [begin, end) of m.
template <class T>
Mat<const T> rows_of(Mat<const T> m, int64_t begin, int64_t end) {
  return {m.data + begin * m.stride, end - begin, m.cols, m.stride};
}

/// A gradient over one batch, and over parts of it that end where runs do.
TEST(Dot16MatmulRuns, BatchesMayBeCutBetweenRuns) {
  constexpr int64_t kN = 70, kK = 90;
  std::vector<int64_t> run_ends{0};
  for (int64_t run = 1; run <= 40; run += 3) run_ends.push_back(run_ends.back() + run);
  run_ends.push_back(run_ends.back());  // an empty one
  const int64_t m = run_ends.back();
  const Bf16Matrix dy(Matrix::random(m, kN, 1)), x(Matrix::random(m, kK, 2));
  const Matrix before = Matrix::random(kN, kK, 3);
  on_every_target([&](const Context& ctx) {
    Matrix whole = before, one_run = before;
    matmul_backward_weight(ctx,
                           {.dw = whole.mat(), .dy = dy.mat(), .x = x.mat(), .run_ends = run_ends});
    matmul_backward_weight(ctx, {.dw = one_run.mat(), .dy = dy.mat(), .x = x.mat()});
    EXPECT_FALSE(same_bits(one_run.values, whole.values));
    for (const size_t size : {1, 3, 7}) {
      Matrix parts = before;
      int64_t begin = 0;
      for (size_t run = 0; run < run_ends.size(); run += size) {
        std::vector<int64_t> ends;
        for (size_t i = run; i < std::min(run + size, run_ends.size()); ++i)
          ends.push_back(run_ends[i] - begin);
        const int64_t end = begin + ends.back();
        matmul_backward_weight(ctx, {.dw = parts.mat(),
                                     .dy = rows_of<Bf16>(dy.mat(), begin, end),
                                     .x = rows_of<Bf16>(x.mat(), begin, end),
                                     .run_ends = ends});
        begin = end;
      }
      EXPECT_TRUE(same_bits(parts.values, whole.values)) << size << " runs a part";
    }
  });
}

/// A row of a result is the same in a batch of any size.
TEST(Dot16MatmulRows, DoNotDependOnTheirNumber) {
  constexpr int64_t kM = 140, kN = 200, kK = 100;
  const Bf16Matrix x(Matrix::random(kM, kK, 1));
  const Matrix w = Matrix::random(kN, kK, 2);
  on_every_target([&](const Context& ctx) {
    const Weight weight(ctx, w);
    Matrix whole(kM, kN), rows(kM, kN);
    matmul_forward(ctx, {.y = whole.mat(), .x = x.mat(), .weight = weight.packed});
    for (int64_t i = 0, count = 1; i < kM; i += count, ++count) {
      const int64_t end = std::min(i + count, kM);
      const Mat<float> part{rows.mat().data + i * rows.mat().stride, end - i, kN,
                            rows.mat().stride};
      matmul_forward(ctx,
                     {.y = part, .x = rows_of<Bf16>(x.mat(), i, end), .weight = weight.packed});
    }
    EXPECT_TRUE(same_bits(rows.values, whole.values));
  });
}

TEST(Dot16MatmulWeights, AreRoundedHalfAwayFromZero) {
  Matrix w(1, 3), y(3, 1);
  w(0, 0) = 1.0f + 0x1p-8f, w(0, 1) = -1.0f - 0x1p-8f, w(0, 2) = 1.0f + 0x1.fp-9f;
  Matrix x(3, 3);
  for (int64_t i = 0; i < 3; ++i)
    for (int64_t j = 0; j < 3; ++j) x(i, j) = i == j ? 1.0f : 0.0f;
  const Context ctx{.device = kDevice};
  const Weight weight(ctx, w);
  const Bf16Matrix x_bf16(x);
  matmul_forward(ctx, {.y = y.mat(), .x = x_bf16.mat(), .weight = weight.packed});
  EXPECT_EQ(y(0, 0), 1.0f + 0x1p-7f);
  EXPECT_EQ(y(1, 0), -1.0f - 0x1p-7f);
  EXPECT_EQ(y(2, 0), 1.0f);
}

TEST(Dot16MatmulWeights, TooLarge) {
  const int64_t most = std::numeric_limits<int64_t>::max();
  expect_error([&] { packed_weight_bytes(kDevice, DType::kBF16, 64, most); }, "too large");
  expect_error([&] { packed_weight_bytes(kDevice, DType::kBF16, most, 64); }, "too large");
}

}  // namespace
}  // namespace orrery::kernels
