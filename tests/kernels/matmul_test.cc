// Every product of f32 operands must have the bits of a loop of std::fma in index
// order: on each instruction set, for any number of threads, and however a batch is
// cut. (bf16: pairs_matmul_test.cc.)
#include "kernels/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/cuda_api.h"
#include "core/error.h"
#include "kernels/numerics.h"
#include "tests/kernels/cases/matmul_cases.h"

namespace orrery::kernels {
namespace {
using namespace cases;

/// A matrix that owns its memory; rows are `padding` elements apart, which must stay as
/// they were.
struct Matrix {
  int64_t rows = 0, cols = 0, stride = 0;
  std::vector<float> values;

  Matrix() = default;
  Matrix(int64_t r, int64_t c, int64_t padding = 0)
      : rows(r),
        cols(c),
        stride(c + padding),
        values(static_cast<size_t>(r * (c + padding)), -77.0f) {}
  float& at(int64_t r, int64_t c) { return values[static_cast<size_t>(r * stride + c)]; }
  float at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * stride + c)]; }
  Mat<float> mat() { return {values.data(), rows, cols, stride}; }
  Mat<const float> mat() const { return {values.data(), rows, cols, stride}; }
};

/// Uniform in (-1, 1) with all 24 bits of the mantissa in play.
float noise(uint64_t& state) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
}

Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed, int64_t padding = 0) {
  Matrix m(rows, cols, padding);
  uint64_t state = seed;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.at(r, c) = noise(state);
  }
  return m;
}

/// The same with NaN for its elements: what an op is to overwrite.
Matrix poisoned(Matrix m) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) m.at(r, c) = std::numeric_limits<float>::quiet_NaN();
  }
  return m;
}

/// The vector's memory as an op on the CPU sees it.
Vec<float> vec(std::vector<float>& v) { return {v.data(), std::ssize(v)}; }

std::vector<uint32_t> bits(const Matrix& m) {
  std::vector<uint32_t> result;
  result.reserve(m.values.size());
  for (const float v : m.values) result.push_back(std::bit_cast<uint32_t>(v));
  return result;
}

// The definition: y_ij starts at the bias, at 0 or at y_ij, then one fma for each p in
// order.
void forward_oracle(Matrix& y, const Matrix& x, const Matrix& w, const std::vector<float>& bias,
                    bool accumulate) {
  for (int64_t i = 0; i < y.rows; ++i) {
    for (int64_t j = 0; j < y.cols; ++j) {
      float acc = accumulate ? y.at(i, j) : bias.empty() ? 0.0f : bias[static_cast<size_t>(j)];
      for (int64_t p = 0; p < x.cols; ++p) acc = std::fma(x.at(i, p), w.at(j, p), acc);
      y.at(i, j) = acc;
    }
  }
}

void backward_input_oracle(Matrix& dx, const Matrix& dy, const Matrix& w, bool accumulate) {
  for (int64_t i = 0; i < dx.rows; ++i) {
    for (int64_t p = 0; p < dx.cols; ++p) {
      float acc = accumulate ? dx.at(i, p) : 0.0f;
      for (int64_t j = 0; j < dy.cols; ++j) acc = std::fma(dy.at(i, j), w.at(j, p), acc);
      dx.at(i, p) = acc;
    }
  }
}

void backward_weight_oracle(Matrix& dw, const Matrix& dy, const Matrix& x, bool accumulate) {
  for (int64_t j = 0; j < dw.rows; ++j) {
    for (int64_t p = 0; p < dw.cols; ++p) {
      float acc = accumulate ? dw.at(j, p) : 0.0f;
      for (int64_t i = 0; i < dy.rows; ++i) acc = std::fma(dy.at(i, j), x.at(i, p), acc);
      dw.at(j, p) = acc;
    }
  }
}

struct Weight {
  explicit Weight(const Matrix& w, int threads = 1)
      : memory(Device{}, packed_weight_bytes(Device{}, DType::kF32, w.rows, w.cols)),
        packed(pack_weight(Context{.threads = threads},
                           {.weight = w.mat(), .memory = memory.data()})) {}
  Buffer memory;
  PackedWeight packed;
};

/// Runs `body(context)` on each instruction set of this machine with 1, 2 and 3
/// threads.
template <class Body>
void for_each_target(Body body) {
  for (const std::string& target : supported_cpu_targets()) {
    set_cpu_target(target);
    for (const int threads : {1, 2, 3}) {
      SCOPED_TRACE(target + ", " + std::to_string(threads) + " threads");
      body(Context{.threads = threads});
    }
  }
  set_cpu_target("best");
}

class Matmul : public ::testing::TestWithParam<MatmulCase> {
 protected:
  Matrix x_ = random_matrix(GetParam().m, GetParam().k, GetParam().seed, GetParam().padding);
  Matrix w_ = random_matrix(GetParam().n, GetParam().k, GetParam().seed + 1, GetParam().padding);
  Matrix y_ = random_matrix(GetParam().m, GetParam().n, GetParam().seed + 2, GetParam().padding);
};

TEST_P(Matmul, ForwardHasTheBitsOfTheScalarChain) {
  const MatmulCase& c = GetParam();
  std::vector<float> bias;
  if (c.bias) bias = random_matrix(1, c.n, c.seed + 3).values;
  Matrix expected = y_;
  forward_oracle(expected, x_, w_, bias, c.accumulate);
  for_each_target([&](const Context& ctx) {
    const Weight weight(w_, ctx.threads);
    Matrix y = y_;
    matmul_forward(ctx, {.y = y.mat(),
                         .x = x_.mat(),
                         .weight = weight.packed,
                         .bias = vec(bias),
                         .accumulate = c.accumulate});
    EXPECT_EQ(bits(y), bits(expected));
  });
}

TEST_P(Matmul, BackwardInputHasTheBitsOfTheScalarChain) {
  const MatmulCase& c = GetParam();
  Matrix expected = x_;
  backward_input_oracle(expected, y_, w_, c.accumulate);
  for_each_target([&](const Context& ctx) {
    const Weight weight(w_, ctx.threads);
    Matrix dx = x_;
    matmul_backward_input(
        ctx, {.dx = dx.mat(), .dy = y_.mat(), .weight = weight.packed, .accumulate = c.accumulate});
    EXPECT_EQ(bits(dx), bits(expected));
  });
}

TEST_P(Matmul, BackwardWeightHasTheBitsOfTheScalarChain) {
  for (const bool accumulate : {true, false}) {
    Matrix expected = w_;
    backward_weight_oracle(expected, y_, x_, accumulate);
    for_each_target([&](const Context& ctx) {
      Matrix dw = accumulate ? w_ : poisoned(w_);
      matmul_backward_weight(
          ctx, {.dw = dw.mat(), .dy = y_.mat(), .x = x_.mat(), .accumulate = accumulate});
      EXPECT_EQ(bits(dw), bits(expected)) << "accumulate " << accumulate;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Matmul, ::testing::ValuesIn(cases_for(kMatmulCases, kOracle)),
                         CaseName());

TEST(MatmulRows, DoNotDependOnTheBatchTheyAreIn) {
  constexpr int64_t kRows = 70, kN = 101, kK = 83;
  const Matrix x = random_matrix(kRows, kK, 1);
  const Matrix w = random_matrix(kN, kK, 2);
  for_each_target([&](const Context& ctx) {
    const Weight weight(w);
    Matrix whole(kRows, kN);
    matmul_forward(ctx, {.y = whole.mat(), .x = x.mat(), .weight = weight.packed});
    for (const int64_t batch : {1, 2, 3, 5, 8, 13, 14, 15, 33, 64}) {
      Matrix cut(kRows, kN);
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

TEST(MatmulBackwardWeight, OverTwoPartsOfABatchIsThatOfTheWhole) {
  constexpr int64_t kRows = 90, kN = 50, kK = 37;
  const Matrix x = random_matrix(kRows, kK, 1), dy = random_matrix(kRows, kN, 2);
  for_each_target([&](const Context& ctx) {
    Matrix whole = random_matrix(kN, kK, 3);
    Matrix cut = whole;
    matmul_backward_weight(ctx, {.dw = whole.mat(), .dy = dy.mat(), .x = x.mat()});
    for (const auto& [begin, end] : {std::pair<int64_t, int64_t>{0, 1}, {1, 45}, {45, 90}}) {
      matmul_backward_weight(ctx, {.dw = cut.mat(),
                                   .dy = dy.mat().row_range(begin, end),
                                   .x = x.mat().row_range(begin, end)});
    }
    EXPECT_EQ(bits(cut), bits(whole));
  });
}

TEST(MatmulBackwardWeight, OverwritingHasTheBitsOfAddingToZeros) {
  // Products that round to -0 leave +0 as it is.
  constexpr int64_t kN = 33, kK = 5;
  Matrix dy = random_matrix(7, kN, 1), x = random_matrix(7, kK, 2);
  for (float& v : dy.values) v = -std::fabs(v) * 1e-30f;
  for (float& v : x.values) v = std::fabs(v) * 1e-30f;
  for_each_target([&](const Context& ctx) {
    Matrix added(kN, kK), written = poisoned(added);
    added.values.assign(added.values.size(), 0.0f);
    matmul_backward_weight(ctx, {.dw = added.mat(), .dy = dy.mat(), .x = x.mat()});
    matmul_backward_weight(
        ctx, {.dw = written.mat(), .dy = dy.mat(), .x = x.mat(), .accumulate = false});
    EXPECT_EQ(bits(written), bits(added));
  });
}

class MatmulGradient : public ::testing::TestWithParam<MatmulCase> {};

TEST_P(MatmulGradient, IsTheGradientOfForward) {
  // L = sum of y * dy is linear in x, in w and in the bias, so a difference quotient is
  // exact up to rounding.
  const MatmulCase& c = GetParam();
  Matrix x = random_matrix(c.m, c.k, c.seed), w = random_matrix(c.n, c.k, c.seed + 1);
  const Matrix dy = random_matrix(c.m, c.n, c.seed + 2);
  std::vector<float> bias = random_matrix(1, c.n, c.seed + 3).values;
  const Context ctx;
  const auto loss = [&] {
    const Weight weight(w);
    Matrix y(c.m, c.n);
    matmul_forward(ctx, {.y = y.mat(), .x = x.mat(), .weight = weight.packed, .bias = vec(bias)});
    double sum = 0;
    for (size_t i = 0; i < y.values.size(); ++i) sum += double{y.values[i]} * double{dy.values[i]};
    return sum;
  };
  const Weight weight(w);
  Matrix dx(c.m, c.k), dw(c.n, c.k);
  dw.values.assign(dw.values.size(), 0.0f);
  std::vector<float> db(bias.size(), 0.0f);
  matmul_backward_input(ctx, {.dx = dx.mat(), .dy = dy.mat(), .weight = weight.packed});
  matmul_backward_weight(ctx, {.dw = dw.mat(), .dy = dy.mat(), .x = x.mat()});
  bias_backward(ctx, {.db = vec(db), .dy = dy.mat()});
  const auto check = [&](std::vector<float>& values, const std::vector<float>& gradient,
                         const char* name) {
    for (size_t i = 0; i < values.size(); ++i) {
      const float saved = values[i];
      values[i] = saved + 0.5f;
      const double above = loss();
      values[i] = saved - 0.5f;
      const double below = loss();
      values[i] = saved;
      EXPECT_NEAR(gradient[i], above - below, 2e-5) << name << " " << i;
    }
  };
  check(x.values, dx.values, "x");
  check(w.values, dw.values, "w");
  check(bias, db, "bias");
}

INSTANTIATE_TEST_SUITE_P(Shapes, MatmulGradient,
                         ::testing::ValuesIn(cases_for(kMatmulCases, kDifferences)), CaseName());

TEST(MatmulBackward, AgreesWithDoublePrecision) {
  constexpr int64_t kM = 33, kN = 65, kK = 70;
  const Matrix x = random_matrix(kM, kK, 1), w = random_matrix(kN, kK, 2),
               dy = random_matrix(kM, kN, 3);
  const Context ctx{.threads = 2};
  const Weight weight(w);
  Matrix y(kM, kN), dx(kM, kK), dw(kN, kK);
  dw.values.assign(dw.values.size(), 0.0f);
  matmul_forward(ctx, {.y = y.mat(), .x = x.mat(), .weight = weight.packed});
  matmul_backward_input(ctx, {.dx = dx.mat(), .dy = dy.mat(), .weight = weight.packed});
  matmul_backward_weight(ctx, {.dw = dw.mat(), .dy = dy.mat(), .x = x.mat()});
  const auto sum = [](int64_t count, auto term) {
    double total = 0;
    for (int64_t i = 0; i < count; ++i) total += term(i);
    return total;
  };
  const auto times = [](float a, float b) { return double{a} * double{b}; };
  for (int64_t i = 0; i < kM; ++i) {
    for (int64_t j = 0; j < kN; ++j) {
      EXPECT_NEAR(y.at(i, j), sum(kK, [&](int64_t p) { return times(x.at(i, p), w.at(j, p)); }),
                  1e-5);
    }
    for (int64_t p = 0; p < kK; ++p) {
      EXPECT_NEAR(dx.at(i, p), sum(kN, [&](int64_t j) { return times(dy.at(i, j), w.at(j, p)); }),
                  1e-5);
    }
  }
  for (int64_t j = 0; j < kN; ++j) {
    for (int64_t p = 0; p < kK; ++p) {
      EXPECT_NEAR(dw.at(j, p), sum(kM, [&](int64_t i) { return times(dy.at(i, j), x.at(i, p)); }),
                  1e-5);
    }
  }
}

TEST(BiasBackward, AddsRowsInOrder) {
  for (const BiasCase& c : cases_for(kBiasCases, kOracle)) {
    const Matrix dy = random_matrix(c.m, c.n, c.seed, c.padding);
    const std::vector<float> start = random_matrix(1, c.n, c.seed + 1).values;
    for (const bool accumulate : {true, false}) {
      std::vector<float> expected = accumulate ? start : std::vector<float>(start.size());
      for (int64_t i = 0; i < dy.rows; ++i) {
        for (int64_t j = 0; j < dy.cols; ++j) expected[static_cast<size_t>(j)] += dy.at(i, j);
      }
      for_each_target([&](const Context& ctx) {
        std::vector<float> db = start;
        if (!accumulate) db.assign(db.size(), std::numeric_limits<float>::quiet_NaN());
        bias_backward(ctx, {.db = vec(db), .dy = dy.mat(), .accumulate = accumulate});
        EXPECT_EQ(db, expected) << c << ", accumulate " << accumulate;
      });
    }
  }
}

TEST(MatmulForward, KeepsInfinitiesAndNansWhereTheyBelong) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  Matrix x = random_matrix(16, 20, 1), w = random_matrix(37, 20, 2);
  x.at(3, 5) = kInf;
  x.at(9, 0) = std::numeric_limits<float>::quiet_NaN();
  w.at(36, 2) = -kInf;  // in the panel that is padded
  for_each_target([&](const Context& ctx) {
    const Weight weight(w);
    Matrix y(16, 37), dx(16, 20);
    matmul_forward(ctx, {.y = y.mat(), .x = x.mat(), .weight = weight.packed});
    for (int64_t i = 0; i < 16; ++i) {
      for (int64_t j = 0; j < 37; ++j) {
        if (i == 9) {
          EXPECT_TRUE(std::isnan(y.at(i, j)));
        } else if (i == 3 || j == 36) {
          EXPECT_FALSE(std::isfinite(y.at(i, j)));
        } else {
          EXPECT_TRUE(std::isfinite(y.at(i, j))) << i << " " << j;
        }
      }
    }
    const Matrix dy = random_matrix(16, 37, 3);
    matmul_backward_input(ctx, {.dx = dx.mat(), .dy = dy.mat(), .weight = weight.packed});
    for (int64_t i = 0; i < 16; ++i) {
      for (int64_t p = 0; p < 20; ++p)
        EXPECT_EQ(std::isfinite(dx.at(i, p)), p != 2) << i << " " << p;
    }
  });
}

TEST(PackedWeight, IsInPanelsOf32PaddedWithZeros) {
  for (const PackCase& c : cases_for(kPackCases, kOracle)) {
    const Matrix w = random_matrix(c.n, c.k, c.seed);
    const int64_t padded = (c.n + 31) / 32 * 32;
    for_each_target([&](const Context& ctx) {
      const Weight weight(w, ctx.threads);
      ASSERT_EQ(std::ssize(weight.memory.span<float>()), padded * c.k);
      for (int64_t j = 0; j < padded; ++j) {
        for (int64_t p = 0; p < c.k; ++p) {
          const int64_t at = (j / 32 * c.k + p) * 32 + j % 32;
          EXPECT_EQ(weight.memory.span<float>()[at], j < c.n ? w.at(j, p) : 0.0f);
        }
      }
    });
  }
}

TEST(MatmulChecks, NameTheMatrixWhoseShapeIsWrong) {
  const Context ctx;
  const Matrix w = random_matrix(6, 4, 1);
  const Weight weight(w);
  Matrix x(3, 4), y(3, 6), narrow(3, 5), few(2, 6);
  std::vector<float> bias(5);
  const auto message = [](auto call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message([&] {
                matmul_forward(ctx, {.y = y.mat(), .x = narrow.mat(), .weight = weight.packed});
              }),
              HasSubstr("x is [3, 5]"));
  EXPECT_THAT(message([&] {
                matmul_forward(ctx, {.y = few.mat(), .x = x.mat(), .weight = weight.packed});
              }),
              HasSubstr("y is [2, 6]"));
  EXPECT_THAT(message([&] {
                matmul_forward(
                    ctx, {.y = y.mat(), .x = x.mat(), .weight = weight.packed, .bias = vec(bias)});
              }),
              HasSubstr("bias of 5"));
  EXPECT_THAT(message([&] {
                matmul_backward_input(ctx,
                                      {.dx = x.mat(), .dy = narrow.mat(), .weight = weight.packed});
              }),
              HasSubstr("dy is [3, 5]"));
  EXPECT_THAT(message([&] {
                matmul_backward_weight(ctx, {.dw = narrow.mat(), .dy = y.mat(), .x = x.mat()});
              }),
              HasSubstr("dw is [3, 5]"));
  EXPECT_THAT(message([&] {
                packed_weight_bytes(Device{}, DType::kF32, int64_t{1} << 40, int64_t{1} << 40);
              }),
              HasSubstr("too large"));
  const Context cuda{.device = {DeviceType::kCuda}};
  if (kCudaBuilt) {  // no backend is missing
    EXPECT_THAT(message([&] { packed_weight_bytes(cuda.device, DType::kBF16, 6, 4); }),
                HasSubstr("the weight holds bf16; it must hold f32"));
    return;
  }
  EXPECT_THAT(
      message([&] { matmul_forward(cuda, {.y = y.mat(), .x = x.mat(), .weight = weight.packed}); }),
      HasSubstr("matmul_forward: this build has no kernels for device cuda:0"));
  EXPECT_THAT(message([&] { packed_weight_bytes(cuda.device, DType::kF32, 6, 4); }),
              HasSubstr("packed_weight_bytes: this build has no kernels for device cuda:0"));
}

TEST(CpuTarget, IsChosenByNameAndRestored) {
  require_instruction_sets();
  const std::string best = cpu_target_name();
  const std::vector<std::string> names = supported_cpu_targets();
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    set_cpu_target(name);
    EXPECT_EQ(cpu_target_name(), name == "avx2"     ? "AVX2"
                                 : name == "avx512" ? "AVX-512"
                                 : name == "amx"    ? "AVX-512 and AMX"
                                                    : "NEON");
    EXPECT_EQ(supported_cpu_targets(), names);  // what the CPU has, not what is chosen
  }
  set_cpu_target("best");
  EXPECT_EQ(cpu_target_name(), best);
  EXPECT_THROW(set_cpu_target("sse4"), Error);
  EXPECT_EQ(cpu_target_name(), best);
}

}  // namespace
}  // namespace orrery::kernels
