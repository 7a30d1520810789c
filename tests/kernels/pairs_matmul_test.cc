// Every product of bf16 operands must have the bits of the recipe of docs/numerics.md
// in scalar code: on vectors of each instruction set, on tiles, for any number of
// threads, and however a batch is cut.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "kernels/cpu/pairs.h"
#include "kernels/matmul.h"
#include "kernels/numerics.h"
#include "tests/kernels/cases/matmul_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using cpu::flushed_add;
using cpu::flushed_fma;
using kernel_testing::expect_error;
using kernel_testing::vec;

/// A matrix that owns its memory; rows are `padding` elements apart, which must stay as
/// they were.
template <class T>
struct Matrix {
  int64_t rows = 0, cols = 0, stride = 0;
  std::vector<T> values;

  T& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * stride + c)]; }
  const T& at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * stride + c)]; }
  Mat<T> mat() { return {values.data(), rows, cols, stride}; }
  Mat<const T> mat() const { return {values.data(), rows, cols, stride}; }
};

/// Uniform in (-scale, scale), the padding included.
Matrix<float> random_floats(int64_t rows, int64_t cols, uint64_t seed, int64_t padding = 0,
                            float scale = 1.0f) {
  Matrix<float> m{rows, cols, cols + padding, {}};
  uint64_t state = seed;
  for (int64_t i = 0; i < rows * m.stride; ++i) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    m.values.push_back(static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f * scale);
  }
  return m;
}

/// The same with NaN for its elements: what an op is to overwrite.
Matrix<float> poisoned(Matrix<float> m) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) m.at(r, c) = std::numeric_limits<float>::quiet_NaN();
  }
  return m;
}

Matrix<Bf16> rounded(const Matrix<float>& m) {
  Matrix<Bf16> result{m.rows, m.cols, m.stride, {}};
  for (const float v : m.values) result.values.push_back(to_bf16(v));
  return result;
}

Matrix<Bf16> random_bf16(int64_t rows, int64_t cols, uint64_t seed, int64_t padding = 0,
                         float scale = 1.0f) {
  return rounded(random_floats(rows, cols, seed, padding, scale));
}

/// Bits, all NaN as one.
template <class T>
std::vector<uint32_t> bits(const Matrix<T>& m) {
  std::vector<uint32_t> result;
  for (const T v : m.values) {
    if constexpr (std::is_same_v<T, Bf16>) {
      result.push_back(std::isnan(to_f32(v)) ? 0x7FC0u : v.bits);
    } else {
      result.push_back(std::isnan(v) ? 0x7FC00000u : std::bit_cast<uint32_t>(v));
    }
  }
  return result;
}

/// Elements of `expected`, a result as f32, rounded; the padding as in `before`.
Matrix<Bf16> rounded_result(const Matrix<float>& expected, Matrix<Bf16> before) {
  for (int64_t i = 0; i < expected.rows; ++i) {
    for (int64_t j = 0; j < expected.cols; ++j) before.at(i, j) = to_bf16(expected.at(i, j));
  }
  return before;
}

/// The recipe: sum + a(p) b(p) over p in [begin, end), in blocks of 32 from `begin` on.
template <class A, class B>
float sum_in_pairs(float sum, int64_t begin, int64_t end, const A& a, const B& b) {
  for (int64_t block = begin; block < end; block += 32) {
    float part[2] = {0.0f, 0.0f};
    for (int64_t p = block; p < block + 32; ++p) {
      float& chain = part[(p - block) % 2];
      chain =
          p < end ? flushed_fma(to_f32(a(p)), to_f32(b(p)), chain) : flushed_fma(0.0f, 0.0f, chain);
    }
    sum = flushed_add(sum, flushed_add(part[0], part[1]));
  }
  return sum;
}

/// y from its own values, or from the bias, or from zero.
void forward_oracle(Matrix<float>& y, const Matrix<Bf16>& x, const Matrix<Bf16>& w,
                    const std::vector<float>& bias, bool accumulate) {
  for (int64_t i = 0; i < y.rows; ++i) {
    for (int64_t j = 0; j < y.cols; ++j) {
      const float start = accumulate ? y.at(i, j) : bias.empty() ? 0.0f : bias[j];
      y.at(i, j) = sum_in_pairs(
          start, 0, x.cols, [&](int64_t p) { return x.at(i, p); },
          [&](int64_t p) { return w.at(j, p); });
    }
  }
}

void backward_input_oracle(Matrix<float>& dx, const Matrix<Bf16>& dy, const Matrix<Bf16>& w,
                           bool accumulate) {
  for (int64_t i = 0; i < dx.rows; ++i) {
    for (int64_t p = 0; p < dx.cols; ++p) {
      dx.at(i, p) = sum_in_pairs(
          accumulate ? dx.at(i, p) : 0.0f, 0, dy.cols, [&](int64_t j) { return dy.at(i, j); },
          [&](int64_t j) { return w.at(j, p); });
    }
  }
}

void backward_weight_oracle(Matrix<float>& dw, const Matrix<Bf16>& dy, const Matrix<Bf16>& x,
                            std::vector<int64_t> run_ends, bool accumulate) {
  if (run_ends.empty()) run_ends = {x.rows};
  for (int64_t j = 0; j < dw.rows; ++j) {
    for (int64_t p = 0; p < dw.cols; ++p) {
      if (!accumulate) dw.at(j, p) = 0.0f;
      int64_t begin = 0;
      for (const int64_t end : run_ends) {
        dw.at(j, p) = sum_in_pairs(
            dw.at(j, p), begin, end, [&](int64_t i) { return dy.at(i, j); },
            [&](int64_t i) { return x.at(i, p); });
        begin = end;
      }
    }
  }
}

/// A weight as it is packed.
struct Weight {
  explicit Weight(const Matrix<float>& w, int threads = 1)
      : memory(Device{}, packed_weight_bytes(Device{}, DType::kBF16, w.rows, w.cols)),
        packed(pack_weight(Context{.threads = threads},
                           {.weight = w.mat(), .dtype = DType::kBF16, .memory = memory.data()})) {}
  Buffer memory;
  PackedWeight packed;
};

Matrix<Bf16> rounded_as_weight(const Matrix<float>& w) {
  Matrix<Bf16> result{w.rows, w.cols, w.stride, {}};
  for (const float v : w.values) result.values.push_back({f32_to_bf16_half_away(v)});
  return result;
}

/// Runs `body(context)` on each way of computing pairs with 1, 2 and 3 threads.
template <class Body>
void on_every_engine(Body body) {
  for (const std::string& target : supported_pairs_targets()) {
    set_cpu_target(target);
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(target + ", " + std::to_string(threads) + " threads");
      body(Context{.threads = threads});
    }
  }
  set_cpu_target("best");
}

class PairsMatmul : public ::testing::TestWithParam<MatmulCase> {
 protected:
  const MatmulCase& c_ = GetParam();
  Matrix<Bf16> x_ = random_bf16(c_.m, c_.k, c_.seed, c_.padding);
  Matrix<Bf16> dy_ = random_bf16(c_.m, c_.n, c_.seed + 1, c_.padding);
  Matrix<float> w_ = random_floats(c_.n, c_.k, c_.seed + 2, c_.padding);
};

TEST_P(PairsMatmul, ForwardHasTheBitsOfTheRecipe) {
  const Matrix<float> before = random_floats(c_.m, c_.n, c_.seed + 3, c_.padding);
  std::vector<float> bias;
  if (c_.bias) bias = random_floats(1, c_.n, c_.seed + 4).values;
  Matrix<float> expected = before;
  forward_oracle(expected, x_, rounded_as_weight(w_), bias, c_.accumulate);
  const Matrix<Bf16> before_bf16 = rounded(before);
  const Matrix<Bf16> expected_bf16 = rounded_result(expected, before_bf16);
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w_, ctx.threads);
    Matrix<float> y = before;
    MatmulForward op{.y = y.mat(),
                     .x = std::as_const(x_).mat(),
                     .weight = weight.packed,
                     .bias = vec(bias),
                     .accumulate = c_.accumulate};
    matmul_forward(ctx, op);
    EXPECT_EQ(bits(y), bits(expected));
    if (c_.accumulate) return;
    Matrix<Bf16> y_bf16 = before_bf16;
    op.y = y_bf16.mat();
    matmul_forward(ctx, op);
    EXPECT_EQ(bits(y_bf16), bits(expected_bf16));
  });
}

TEST_P(PairsMatmul, BackwardInputHasTheBitsOfTheRecipe) {
  const Matrix<float> before = random_floats(c_.m, c_.k, c_.seed + 3, c_.padding);
  Matrix<float> expected = before;
  backward_input_oracle(expected, dy_, rounded_as_weight(w_), c_.accumulate);
  const Matrix<Bf16> before_bf16 = rounded(before);
  const Matrix<Bf16> expected_bf16 = rounded_result(expected, before_bf16);
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w_, ctx.threads);
    Matrix<float> dx = before;
    MatmulBackwardInput op{.dx = dx.mat(),
                           .dy = std::as_const(dy_).mat(),
                           .weight = weight.packed,
                           .accumulate = c_.accumulate};
    matmul_backward_input(ctx, op);
    EXPECT_EQ(bits(dx), bits(expected));
    if (c_.accumulate) return;
    Matrix<Bf16> dx_bf16 = before_bf16;
    op.dx = dx_bf16.mat();
    matmul_backward_input(ctx, op);
    EXPECT_EQ(bits(dx_bf16), bits(expected_bf16));
  });
}

TEST_P(PairsMatmul, BackwardWeightHasTheBitsOfTheRecipe) {
  const std::vector<int64_t> run_ends(c_.run_ends.begin(), c_.run_ends.end());
  for (const bool accumulate : {true, false}) {
    Matrix<float> expected = w_;
    backward_weight_oracle(expected, dy_, x_, run_ends, accumulate);
    on_every_engine([&](const Context& ctx) {
      Matrix<float> dw = accumulate ? w_ : poisoned(w_);
      matmul_backward_weight(ctx, {.dw = dw.mat(),
                                   .dy = std::as_const(dy_).mat(),
                                   .x = std::as_const(x_).mat(),
                                   .run_ends = run_ends,
                                   .accumulate = accumulate});
      EXPECT_EQ(bits(dw), bits(expected)) << "accumulate " << accumulate;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PairsMatmul,
                         ::testing::ValuesIn(cases_for(kPairsMatmulCases, kOracle)), CaseName());

/// Products and sums about the smallest normal number.
TEST(PairsMatmulSubnormals, AreFlushedInsideAndKeptOutside) {
  constexpr int64_t kM = 20, kN = 40, kK = 70;
  constexpr float kScale = 0x1p-64f;
  const Matrix<Bf16> x = random_bf16(kM, kK, 1, 0, kScale), dy = random_bf16(kM, kN, 2, 0, kScale);
  const Matrix<float> w = random_floats(kN, kK, 3, 0, kScale);
  const Matrix<Bf16> w_bf16 = rounded_as_weight(w);
  const std::vector<float> bias = random_floats(1, kN, 4, 0, 0x1p-126f).values;
  Matrix<float> y{kM, kN, kN, std::vector<float>(kM * kN)};
  Matrix<float> dx = random_floats(kM, kK, 5, 0, 0x1p-126f);
  Matrix<float> dw = random_floats(kN, kK, 6, 0, 0x1p-126f);
  const Matrix<float> dx_before = dx, dw_before = dw;
  Matrix<float> unflushed = y;
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      unflushed.at(i, j) = bias[j];
      for (int64_t p = 0; p < kK; ++p)
        unflushed.at(i, j) += to_f32(x.at(i, p)) * to_f32(w_bf16.at(j, p));
    }
  }
  forward_oracle(y, x, w_bf16, bias, false);
  EXPECT_NE(bits(y), bits(unflushed));
  backward_input_oracle(dx, dy, w_bf16, true);
  backward_weight_oracle(dw, dy, x, {}, true);
  Matrix<float> dw_written = dw;
  backward_weight_oracle(dw_written, dy, x, {}, false);
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w);
    Matrix<float> y_got{kM, kN, kN, std::vector<float>(kM * kN)}, dx_got = dx_before,
                                                                  dw_got = dw_before;
    matmul_forward(ctx,
                   {.y = y_got.mat(), .x = x.mat(), .weight = weight.packed, .bias = vec(bias)});
    matmul_backward_input(
        ctx, {.dx = dx_got.mat(), .dy = dy.mat(), .weight = weight.packed, .accumulate = true});
    matmul_backward_weight(ctx, {.dw = dw_got.mat(), .dy = dy.mat(), .x = x.mat()});
    EXPECT_EQ(bits(y_got), bits(y));
    EXPECT_EQ(bits(dx_got), bits(dx));
    EXPECT_EQ(bits(dw_got), bits(dw));
    matmul_backward_weight(ctx,
                           {.dw = dw_got.mat(), .dy = dy.mat(), .x = x.mat(), .accumulate = false});
    EXPECT_EQ(bits(dw_got), bits(dw_written));
    volatile float tiny = 0x1p-130f;
    EXPECT_EQ(std::bit_cast<uint32_t>(tiny * 0.5f), std::bit_cast<uint32_t>(0x1p-131f));
  });
}

/// A bias that no product is added to is copied, not flushed.
TEST(PairsMatmulSubnormals, StayWhereNothingIsAdded) {
  const std::vector<float> bias(3, 0x1p-130f);
  const Weight weight({3, 0, 0, {}});
  on_every_engine([&](const Context& ctx) {
    Matrix<float> y{1, 3, 3, std::vector<float>(3)};
    matmul_forward(ctx, {.y = y.mat(),
                         .x = ConstActMat(nullptr, DType::kBF16, 1, 0, 0),
                         .weight = weight.packed,
                         .bias = vec(bias)});
    EXPECT_EQ(y.values, bias);
  });
}

TEST(PairsMatmulRows, DoNotDependOnTheBatchTheyAreIn) {
  constexpr int64_t kRows = 70, kN = 101, kK = 83;
  const Matrix<Bf16> x = random_bf16(kRows, kK, 1);
  const Matrix<float> w = random_floats(kN, kK, 2);
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w);
    Matrix<float> whole{kRows, kN, kN, std::vector<float>(kRows * kN)};
    matmul_forward(ctx, {.y = whole.mat(), .x = x.mat(), .weight = weight.packed});
    for (const int64_t batch : {1, 2, 3, 5, 8, 13, 16, 17, 33, 64}) {
      Matrix<float> cut = whole;
      cut.values.assign(cut.values.size(), 0.0f);
      for (int64_t r = 0; r < kRows; r += batch) {
        const int64_t end = std::min(r + batch, kRows);
        matmul_forward(ctx, {.y = cut.mat().row_range(r, end),
                             .x = x.mat().row_range(r, end),
                             .weight = weight.packed});
      }
      EXPECT_EQ(bits(cut), bits(whole)) << "batches of " << batch;
    }
  });
}

TEST(PairsMatmulBackwardWeight, OverTwoPartsCutBetweenRunsIsThatOfTheWhole) {
  constexpr int64_t kRows = 150, kN = 50, kK = 37;
  const Matrix<Bf16> x = random_bf16(kRows, kK, 1), dy = random_bf16(kRows, kN, 2);
  const auto add = [&](const Context& ctx, Matrix<float>& dw, int64_t begin, int64_t end,
                       const std::vector<int64_t>& run_ends) {
    matmul_backward_weight(ctx, {.dw = dw.mat(),
                                 .dy = dy.mat().row_range(begin, end),
                                 .x = x.mat().row_range(begin, end),
                                 .run_ends = run_ends});
  };
  on_every_engine([&](const Context& ctx) {
    Matrix<float> whole = random_floats(kN, kK, 3);
    Matrix<float> cut = whole, one_run = whole;
    add(ctx, whole, 0, kRows, {33, 45, 100, kRows});
    add(ctx, cut, 0, 45, {33, 45});
    add(ctx, cut, 45, kRows, {55, kRows - 45});
    add(ctx, one_run, 0, kRows, {});
    EXPECT_EQ(bits(cut), bits(whole));
    EXPECT_NE(bits(one_run), bits(whole));
  });
}

TEST(PairsMatmulForward, KeepsInfinitiesAndNansWhereTheyBelong) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Matrix<Bf16> x = random_bf16(16, 20, 1);
  Matrix<float> w = random_floats(37, 20, 2);
  x.at(3, 5) = to_bf16(kInf);
  x.at(9, 0) = to_bf16(std::numeric_limits<float>::quiet_NaN());
  w.at(36, 2) = -kInf;  // in the panel that is padded
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w);
    Matrix<Bf16> y{16, 37, 37, std::vector<Bf16>(16 * 37)};
    matmul_forward(ctx, {.y = y.mat(), .x = std::as_const(x).mat(), .weight = weight.packed});
    for (int64_t i = 0; i < 16; ++i) {
      for (int64_t j = 0; j < 37; ++j) {
        const float got = to_f32(y.at(i, j));
        EXPECT_EQ(std::isnan(got), i == 9 || (i == 3 && j == 36 && std::isnan(got)));
        EXPECT_EQ(std::isfinite(got), i != 9 && i != 3 && j != 36) << i << " " << j;
      }
    }
  });
}

/// Where element (j, p) of a weight of k columns, a multiple of 32, lies when packed:
/// in panels of 32 rows, for tiles in halves of them.
int64_t packed_at(int64_t j, int64_t p, int64_t k) {
  const int64_t square = (j / 32 * k + p / 32 * 32) * 32;
  if (cpu::pairs_engine() == cpu::PairsEngine::kVectors)
    return square + p % 32 / 2 * 64 + j % 32 * 2 + p % 2;
  return square + j % 32 / 16 * 512 + p % 32 / 2 * 32 + j % 16 * 2 + p % 2;
}

TEST(PairsPackedWeight, IsInPanelsOfPairsPaddedWithZeros) {
  for (const PackCase& c : cases_for(kPackCases, kOracle)) {
    const Matrix<float> w = random_floats(c.n, c.k, c.seed, 3);
    const int64_t n = (c.n + 31) / 32 * 32, k = (c.k + 31) / 32 * 32;
    on_every_engine([&](const Context& ctx) {
      const Weight weight(w, ctx.threads);
      const Span<const Bf16> packed = weight.memory.span<Bf16>();
      ASSERT_EQ(packed.size(), n * k);
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t p = 0; p < k; ++p) {
          const uint16_t expected =
              j < c.n && p < c.k ? f32_to_bf16_half_away(w.at(j, p)) : uint16_t{0};
          EXPECT_EQ(packed[packed_at(j, p, k)].bits, expected) << j << " " << p;
        }
      }
    });
  }
}

TEST(PairsPackedWeight, RoundsEveryKindOfNumberAsTheScalarDoes) {
  // Halves beside even and odd values, what is near them, the largest, infinities, NaN
  // of all sorts, subnormals, zeros.
  const std::vector<uint32_t> kinds = {0x3F808000, 0x3F818000, 0xBF808000, 0x3F807FFF, 0x3F808001,
                                       0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7F800001,
                                       0x7FBFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x00000001, 0x00008000,
                                       0x80018000, 0x00000000, 0x80000000};
  Matrix<float> w{35, std::ssize(kinds) + 32, std::ssize(kinds) + 32, {}};
  for (int64_t i = 0; i < w.rows * w.cols; ++i)
    w.values.push_back(std::bit_cast<float>(kinds[i % kinds.size()]));
  on_every_engine([&](const Context& ctx) {
    const Weight weight(w, ctx.threads);
    for (int64_t j = 0; j < 35; ++j) {
      for (int64_t p = 0; p < w.cols; ++p) {
        EXPECT_EQ(weight.memory.span<Bf16>()[packed_at(j, p, 64)].bits,
                  f32_to_bf16_half_away(w.at(j, p)))
            << std::bit_cast<uint32_t>(w.at(j, p));
      }
    }
  });
}

TEST(PairsMatmulChecks, NameWhatIsWrong) {
  const Context ctx;
  const Matrix<float> w = random_floats(6, 4, 1);
  const Weight weight(w);
  Matrix<float> x(random_floats(3, 4, 1)), y(random_floats(3, 6, 1)), dw = w;
  Matrix<Bf16> x_bf16 = rounded(x), y_bf16 = rounded(y);
  const PackedWeight f32{DType::kF32, 6, 4, weight.packed.data};
  const auto forward = [&](const ActMat& to, const ActMat& from, const PackedWeight& by,
                           bool accumulate) {
    return [=, &ctx] {
      matmul_forward(ctx, {.y = to, .x = from, .weight = by, .accumulate = accumulate});
    };
  };
  expect_error(forward(y.mat(), x.mat(), weight.packed, false),
               "matmul_forward: x is f32, the weight bf16: both must be f32 or both bf16");
  expect_error(forward(y.mat(), x_bf16.mat(), f32, false), "x is bf16, the weight f32");
  expect_error(forward(y_bf16.mat(), x.mat(), f32, false), "y is bf16 with operands of f32");
  expect_error(forward(y_bf16.mat(), x_bf16.mat(), weight.packed, true),
               "y is bf16, which cannot accumulate");
  const auto input = [&](const ActMat& to, const ActMat& from, bool accumulate) {
    return [=, &ctx, &weight] {
      matmul_backward_input(
          ctx, {.dx = to, .dy = from, .weight = weight.packed, .accumulate = accumulate});
    };
  };
  expect_error(input(x.mat(), y.mat(), false), "dy is f32, the weight bf16");
  expect_error(input(x_bf16.mat(), y_bf16.mat(), true), "dx is bf16, which cannot accumulate");
  const auto backward = [&](const ActMat& dy, const ActMat& from, std::vector<int64_t> run_ends) {
    return [=, &ctx, &dw] {
      matmul_backward_weight(ctx, {.dw = dw.mat(), .dy = dy, .x = from, .run_ends = run_ends});
    };
  };
  expect_error(backward(y.mat(), x_bf16.mat(), {}), "dy is f32, x bf16");
  expect_error(backward(y_bf16.mat(), x_bf16.mat(), {2, 1, 3}),
               "a run ends at row 1, after one that ends at 2");
  expect_error(backward(y_bf16.mat(), x_bf16.mat(), {1, 2}), "the last run ends at row 2 of 3");
  expect_error(backward(y_bf16.mat(), x_bf16.mat(), {-1, 3}), "a run ends at row -1");
  backward(y.mat(), x.mat(), {2, 1})();  // not read in f32
  const int64_t most = std::numeric_limits<int64_t>::max();
  expect_error([&] { packed_weight_bytes(Device{}, DType::kBF16, 64, most); }, "too large");
  expect_error([&] { packed_weight_bytes(Device{}, DType::kBF16, most, 64); }, "too large");
}

}  // namespace
}  // namespace orrery::kernels
