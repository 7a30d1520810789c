#include "kernels/rmsnorm.h"

#include "core/cuda_api.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/rmsnorm_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

class RmsnormTest : public testing::TestWithParam<RmsnormCase> {
 protected:
  static constexpr float kEps = 1e-5f;
};

/// The definition for one vector.
float norm_vector(float* y, const float* x, const float* weight, int64_t dim, float eps) {
  const float sum = lanes_sum(dim, [&](int64_t i, float acc) { return std::fma(x[i], x[i], acc); });
  const float rstd = 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
  for (int64_t i = 0; i < dim; ++i) y[i] = x[i] * rstd * weight[i];
  return rstd;
}

/// The gradient of one vector by definition: returned, not added.
std::vector<float> norm_vector_gradient(const float* dy, const float* x, const float* weight,
                                        float rstd, int64_t dim, const float* start) {
  const float dot =
      lanes_sum(dim, [&](int64_t i, float acc) { return std::fma(dy[i] * weight[i], x[i], acc); });
  const float along = dot / static_cast<float>(dim) * rstd * rstd;
  std::vector<float> dx;
  for (int64_t i = 0; i < dim; ++i) {
    const float across = std::fma(-along, x[i], dy[i] * weight[i]);
    dx.push_back(start != nullptr ? std::fma(across, rstd, start[i]) : across * rstd);
  }
  return dx;
}

double norm_loss(const std::vector<double>& x, const float* dy, const float* weight, double eps) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  const double rstd = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + eps);
  double loss = 0.0;
  for (size_t i = 0; i < x.size(); ++i)
    loss += x[i] * rstd * static_cast<double>(weight[i]) * static_cast<double>(dy[i]);
  return loss;
}

TEST_P(RmsnormTest, ForwardHasTheBitsOfScalarCodeAndAgreesWithDouble) {
  const int64_t tokens = GetParam().tokens, heads = GetParam().heads, dim = GetParam().dim;
  const double tolerance = GetParam().tolerance;
  const uint64_t seed = GetParam().seed;
  const Matrix x = Matrix::random(tokens, heads * dim, seed);
  const std::vector<float> weight = random_vector(dim, seed + 1);
  Matrix y(tokens, heads * dim);
  std::vector<float> rstd;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      rstd.push_back(norm_vector(&y(t, h * dim),
                                 &x.values[0] + t * (x.cols + Matrix::kPadding) + h * dim,
                                 weight.data(), dim, kEps));
      double sum = 0.0;
      for (int64_t i = 0; i < dim; ++i)
        sum += std::pow(static_cast<double>(x(t, h * dim + i)), 2.0);
      const double exact =
          1.0 / std::sqrt(sum / static_cast<double>(dim) + static_cast<double>(kEps));
      for (int64_t i = 0; i < dim; ++i) {
        const double expected = x(t, h * dim + i) * exact * weight[static_cast<size_t>(i)];
        ASSERT_NEAR(y(t, h * dim + i), expected, tolerance * std::max(1.0, std::fabs(expected)));
      }
    }
  }
  on_every_target([&](const Context& ctx) {
    Matrix got(tokens, heads * dim), in_place = x;
    std::vector<float> got_rstd(rstd.size());
    rmsnorm_forward(ctx, {.y = got.mat(),
                          .rstd = vec(got_rstd),
                          .x = x.mat(),
                          .weight = vec(weight),
                          .eps = kEps,
                          .heads = heads});
    EXPECT_TRUE(same_bits(got.values, y.values));
    EXPECT_TRUE(same_bits(got_rstd, rstd));
    rmsnorm_forward(ctx, {.y = in_place.mat(),
                          .x = in_place.mat(),
                          .weight = vec(weight),
                          .eps = kEps,
                          .heads = heads});
    EXPECT_TRUE(same_bits(in_place.values, y.values));
  });
}

TEST_P(RmsnormTest, ResidualFormHasTheBitsOfItsTwoSteps) {
  const int64_t tokens = GetParam().tokens, heads = GetParam().heads, dim = GetParam().dim;
  const int64_t cols = heads * dim;
  const uint64_t seed = GetParam().seed;
  const Matrix x = Matrix::random(tokens, cols, seed),
               delta = Matrix::random(tokens, cols, seed + 2);
  const std::vector<float> weight = random_vector(cols, seed + 1);
  Matrix h(tokens, cols), y(tokens, cols);
  std::vector<float> rstd;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < cols; ++j) h(t, j) = x(t, j) + delta(t, j);
    rstd.push_back(norm_vector(&y(t, 0), &h(t, 0), weight.data(), cols, kEps));
  }
  on_every_target([&](const Context& ctx) {
    Matrix got_h(tokens, cols), got_y(tokens, cols), stream = x, got_y2(tokens, cols);
    std::vector<float> got_rstd(static_cast<size_t>(tokens));
    rmsnorm_residual_forward(ctx, {.h = got_h.mat(),
                                   .y = got_y.mat(),
                                   .rstd = vec(got_rstd),
                                   .x = x.mat(),
                                   .delta = delta.mat(),
                                   .weight = vec(weight),
                                   .eps = kEps});
    EXPECT_TRUE(same_bits(got_h.values, h.values));
    EXPECT_TRUE(same_bits(got_y.values, y.values));
    EXPECT_TRUE(same_bits(got_rstd, rstd));
    rmsnorm_residual_forward(ctx, {.h = stream.mat(),
                                   .y = got_y2.mat(),
                                   .x = stream.mat(),
                                   .delta = delta.mat(),
                                   .weight = vec(weight),
                                   .eps = kEps});
    EXPECT_TRUE(same_bits(stream.values, h.values));
    EXPECT_TRUE(same_bits(got_y2.values, y.values));
  });
}

TEST_P(RmsnormTest, BackwardHasTheBitsOfScalarCodeAndAgreesWithFiniteDifferences) {
  const int64_t tokens = GetParam().tokens, heads = GetParam().heads, dim = GetParam().dim;
  const int64_t cols = heads * dim, stride = cols + Matrix::kPadding;
  const uint64_t seed = GetParam().seed;
  const Matrix x = Matrix::random(tokens, cols, seed), dy = Matrix::random(tokens, cols, seed + 1);
  const Matrix dx_start = Matrix::random(tokens, cols, seed + 4);
  const std::vector<float> weight = random_vector(dim, seed + 2),
                           dweight_start = random_vector(dim, seed + 3);
  Matrix dx(tokens, cols), dx_added = dx_start, y(tokens, cols);
  std::vector<float> rstds;  // of (token, head)
  std::vector<float> dweight = dweight_start;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t at = t * stride + h * dim;
      const float* xv = x.values.data() + at;
      const float* dyv = dy.values.data() + at;
      const float rstd = norm_vector(&y(t, h * dim), xv, weight.data(), dim, kEps);
      rstds.push_back(rstd);
      const auto plain = norm_vector_gradient(dyv, xv, weight.data(), rstd, dim, nullptr);
      const auto added =
          norm_vector_gradient(dyv, xv, weight.data(), rstd, dim, dx_start.values.data() + at);
      const std::vector<double> point(xv, xv + dim);
      for (int64_t i = 0; i < dim; ++i) {
        const auto u = static_cast<size_t>(i);
        dx(t, h * dim + i) = plain[u];
        dx_added(t, h * dim + i) = added[u];
        dweight[u] = std::fma(dyv[i], xv[i] * rstd, dweight[u]);
        const double slope = numeric_gradient(
            [&](const std::vector<double>& v) { return norm_loss(v, dyv, weight.data(), kEps); },
            point, u);
        // A single element normalises to its sign: the gradient is nearly 0 and large
        // terms cancel.
        ASSERT_NEAR(plain[u], slope, 2e-5 * std::max(1.0f, rstd * 4.0f))
            << t << " " << h << " " << i;
      }
    }
  }
  for (int64_t i = 0; i < dim; ++i) {  // the loss is linear in the weight
    double slope = dweight_start[static_cast<size_t>(i)];
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < heads; ++h) {
        slope += static_cast<double>(dy(t, h * dim + i)) * x(t, h * dim + i) *
                 rstds[static_cast<size_t>(t * heads + h)];
      }
    }
    ASSERT_NEAR(dweight[static_cast<size_t>(i)], slope, 1e-4);
  }
  on_every_target([&](const Context& ctx) {
    Matrix got(tokens, cols), in_place = dy;
    std::vector<float> got_dweight = dweight_start, again = dweight_start;
    rmsnorm_backward(ctx, {.dx = got.mat(),
                           .dweight = vec(got_dweight),
                           .dy = dy.mat(),
                           .x = x.mat(),
                           .rstd = vec(std::as_const(rstds)),
                           .weight = vec(weight),
                           .heads = heads});
    EXPECT_TRUE(same_bits(got.values, dx.values));
    EXPECT_TRUE(same_bits(got_dweight, dweight));
    rmsnorm_backward(ctx, {.dx = in_place.mat(),
                           .dweight = vec(again),
                           .dy = in_place.mat(),
                           .x = x.mat(),
                           .rstd = vec(std::as_const(rstds)),
                           .weight = vec(weight),
                           .heads = heads});
    EXPECT_TRUE(same_bits(in_place.values, dx.values));
    EXPECT_TRUE(same_bits(again, dweight));

    // Written over NaN, dweight is what it is when added to zeros.
    std::vector<float> zeros(again.size(), 0.0f);
    again.assign(again.size(), kNan);
    for (std::vector<float>* const sum : {&zeros, &again}) {
      rmsnorm_backward(ctx, {.dx = got.mat(),
                             .dweight = vec(*sum),
                             .dy = dy.mat(),
                             .x = x.mat(),
                             .rstd = vec(std::as_const(rstds)),
                             .weight = vec(weight),
                             .accumulate_dweight = sum == &zeros,
                             .heads = heads});
    }
    EXPECT_TRUE(same_bits(again, zeros));
    EXPECT_FALSE(same_bits(again, dweight));

    // Two calls over parts of the rows give the bits of one.
    Matrix added = dx_start;
    std::vector<float> added_dweight = dweight_start;
    const int64_t cut = tokens / 2;
    for (const auto& [begin, end] : {std::pair{int64_t{0}, cut}, {cut, tokens}}) {
      rmsnorm_backward(
          ctx, {.dx = added.mat().row_range(begin, end),
                .dweight = vec(added_dweight),
                .dy = dy.mat().row_range(begin, end),
                .x = x.mat().row_range(begin, end),
                .rstd = vec(std::as_const(rstds)).part(begin * heads, (end - begin) * heads),
                .weight = vec(weight),
                .accumulate = true,
                .heads = heads});
    }
    EXPECT_TRUE(same_bits(added.values, dx_added.values));
    EXPECT_TRUE(same_bits(added_dweight, dweight));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsnormTest,
                         testing::ValuesIn(of_type(cases_for(kRmsnormCases, kTest), DType::kF32)),
                         CaseName());

/// Norms of all vectors of x, whose elements are floats.
struct Normed {
  Matrix y;
  std::vector<float> rstd;
  Normed(const Matrix& x, const std::vector<float>& weight, int64_t heads, float eps)
      : y(x.rows, x.cols) {
    const int64_t dim = x.cols / heads;
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t h = 0; h < heads; ++h)
        rstd.push_back(norm_vector(&y(t, h * dim), at(x, t, h * dim), weight.data(), dim, eps));
    }
  }
  static const float* at(const Matrix& m, int64_t t, int64_t j) {
    return m.values.data() + t * (m.cols + Matrix::kPadding) + j;
  }
};

/// Gradients of all vectors; `dx` and `dweight` are started from where they are added
/// to.
void norm_gradients(Matrix& dx, std::vector<float>& dweight, const Matrix& dy, const Matrix& x,
                    const std::vector<float>& weight, const Normed& forward, int64_t heads,
                    bool accumulate) {
  const int64_t dim = x.cols / heads;
  size_t vector = 0;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const float rstd = forward.rstd[vector++];
      const float* const xv = Normed::at(x, t, h * dim);
      const float* const dyv = Normed::at(dy, t, h * dim);
      const auto d = norm_vector_gradient(dyv, xv, weight.data(), rstd, dim,
                                          accumulate ? Normed::at(dx, t, h * dim) : nullptr);
      for (int64_t i = 0; i < dim; ++i) {
        const auto u = static_cast<size_t>(i);
        dx(t, h * dim + i) = d[u];
        dweight[u] = std::fma(dyv[i], xv[i] * rstd, dweight[u]);
      }
    }
  }
}

class RmsnormBf16Test : public RmsnormTest {
 protected:
  int64_t tokens() const { return GetParam().tokens; }
  int64_t heads() const { return GetParam().heads; }
  int64_t cols() const { return GetParam().heads * GetParam().dim; }
  Matrix random(uint64_t number) const {
    return Matrix::random(tokens(), cols(), GetParam().seed + number);
  }
  std::vector<float> random_weight(uint64_t number) const {
    return random_vector(GetParam().dim, GetParam().seed + number);
  }
};

TEST_P(RmsnormBf16Test, ForwardRoundsWhatScalarCodeGives) {
  const Matrix x = random(0);
  const std::vector<float> weight = random_weight(1);
  const Normed expected(x, weight, heads(), kEps);
  const Normed of_bf16(rounded(x), weight, heads(), kEps);
  on_every_target([&](const Context& ctx) {
    Bf16Matrix y(tokens(), cols()), in_place(x);
    std::vector<float> rstd(expected.rstd.size());
    const RmsnormForward op{.y = y.mat(),
                            .rstd = vec(rstd),
                            .x = x.mat(),
                            .weight = vec(weight),
                            .eps = kEps,
                            .heads = heads()};
    rmsnorm_forward(ctx, op);
    EXPECT_TRUE(same_bits(y.values(), rounded(expected.y).values));
    EXPECT_TRUE(same_bits(rstd, expected.rstd));
    RmsnormForward heads_op = op;
    heads_op.x = in_place.mat();
    heads_op.y = in_place.mat();
    rmsnorm_forward(ctx, heads_op);
    Matrix want = rounded(x);
    for (int64_t t = 0; t < tokens(); ++t) {
      for (int64_t j = 0; j < cols(); ++j) want(t, j) = rounded(of_bf16.y(t, j));
    }
    EXPECT_TRUE(same_bits(in_place.values(), want.values));
    EXPECT_TRUE(same_bits(rstd, of_bf16.rstd));
  });
}

TEST_P(RmsnormBf16Test, ResidualFormRoundsItsOutputAlone) {
  const Matrix x = random(0), delta = random(2);
  const std::vector<float> weight = random_vector(cols(), GetParam().seed + 1);
  Matrix h(tokens(), cols());
  for (int64_t t = 0; t < tokens(); ++t) {
    for (int64_t j = 0; j < cols(); ++j) h(t, j) = x(t, j) + delta(t, j);
  }
  const Normed expected(h, weight, 1, kEps);
  on_every_target([&](const Context& ctx) {
    Matrix stream = x;
    Bf16Matrix y(tokens(), cols());
    std::vector<float> rstd(expected.rstd.size());
    rmsnorm_residual_forward(ctx, {.h = stream.mat(),
                                   .y = y.mat(),
                                   .rstd = vec(rstd),
                                   .x = stream.mat(),
                                   .delta = delta.mat(),
                                   .weight = vec(weight),
                                   .eps = kEps});
    EXPECT_TRUE(same_bits(stream.values, h.values));
    EXPECT_TRUE(same_bits(y.values(), rounded(expected.y).values));
    EXPECT_TRUE(same_bits(rstd, expected.rstd));
  });
}

TEST_P(RmsnormBf16Test, BackwardGivesTheStreamsGradientRoundedToo) {
  const Matrix x = random(0), dy = random(1), start = random(4);
  const std::vector<float> weight = random_weight(2), dweight_start = random_weight(3);
  const Normed forward(x, weight, heads(), kEps);
  for (const bool accumulate : {false, true}) {
    Matrix dx = start;
    std::vector<float> dweight = dweight_start;
    norm_gradients(dx, dweight, dy, x, weight, forward, heads(), accumulate);
    Matrix dx_rounded(tokens(), cols());
    for (int64_t t = 0; t < tokens(); ++t) {
      for (int64_t j = 0; j < cols(); ++j) dx_rounded(t, j) = dx(t, j);
    }
    on_every_target([&](const Context& ctx) {
      Matrix got = start;
      Bf16Matrix got_rounded(tokens(), cols());
      std::vector<float> got_dweight = dweight_start;
      rmsnorm_backward(ctx, {.dx = got.mat(),
                             .dx_rounded = got_rounded.mat(),
                             .dweight = vec(got_dweight),
                             .dy = dy.mat(),
                             .x = x.mat(),
                             .rstd = vec(forward.rstd),
                             .weight = vec(weight),
                             .accumulate = accumulate,
                             .heads = heads()});
      EXPECT_TRUE(same_bits(got.values, dx.values));
      EXPECT_TRUE(same_bits(got_rounded.values(), rounded(dx_rounded).values));
      EXPECT_TRUE(same_bits(got_dweight, dweight));
    });
  }
}

TEST_P(RmsnormBf16Test, BackwardOfQueriesAndKeysIsInPlace) {
  const Matrix x = rounded(random(0)), dy = rounded(random(1));
  const std::vector<float> weight = random_weight(2), dweight_start = random_weight(3);
  const Normed forward(x, weight, heads(), kEps);
  for (const bool accumulate : {true, false}) {
    Matrix dx = dy;
    std::vector<float> dweight = dweight_start;
    if (!accumulate) dweight.assign(dweight.size(), 0.0f);
    norm_gradients(dx, dweight, dy, x, weight, forward, heads(), false);
    on_every_target([&](const Context& ctx) {
      Bf16Matrix got(dy);
      const Bf16Matrix narrow(x);
      std::vector<float> got_dweight = dweight_start;
      if (!accumulate) got_dweight.assign(got_dweight.size(), kNan);
      rmsnorm_backward(ctx, {.dx = got.mat(),
                             .dweight = vec(got_dweight),
                             .dy = got.mat(),
                             .x = narrow.mat(),
                             .rstd = vec(forward.rstd),
                             .weight = vec(weight),
                             .accumulate_dweight = accumulate,
                             .heads = heads()});
      EXPECT_TRUE(same_bits(got.values(), rounded(dx).values));
      EXPECT_TRUE(same_bits(got_dweight, dweight));
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, RmsnormBf16Test,
                         testing::ValuesIn(of_type(cases_for(kRmsnormCases, kOracle),
                                                   DType::kBF16)),
                         CaseName());

TEST(Rmsnorm, ProductsThatUnderflowKeepTheirSign) {
  // Every product rounds to -0: a tail padded with +0 would lose the sign that the
  // scalar loop keeps.
  const int64_t dim = 19;
  Matrix x(1, dim), dy(1, dim), dx(1, dim);
  std::fill(x.values.begin(), x.values.end(), 1e-30f);
  std::fill(dy.values.begin(), dy.values.end(), -1e-30f);
  const std::vector<float> weight(static_cast<size_t>(dim), 1.0f), rstd = {1.0f};
  const auto expected =
      norm_vector_gradient(dy.values.data(), x.values.data(), weight.data(), 1.0f, dim, nullptr);
  on_every_target([&](const Context& ctx) {
    std::vector<float> dweight(static_cast<size_t>(dim), 0.0f);
    rmsnorm_backward(ctx, {.dx = dx.mat(),
                           .dweight = vec(dweight),
                           .dy = dy.mat(),
                           .x = x.mat(),
                           .rstd = vec(rstd),
                           .weight = vec(weight)});
    const std::vector<float> got(dx.values.begin(), dx.values.begin() + dim);
    EXPECT_TRUE(same_bits(got, expected));
  });
}

TEST(Rmsnorm, BadShapesAreErrors) {
  Matrix x(2, 8), y(2, 8), other(3, 8), none(2, 0);
  std::vector<float> weight(8, 1.0f), rstd(2), wrong(5);
  const RmsnormForward good{
      .y = y.mat(), .rstd = vec(rstd), .x = x.mat(), .weight = vec(weight), .eps = 1e-5f};
  const auto forward = [&](auto&& change) {
    return [&good, change] {
      RmsnormForward op = good;
      change(op);
      rmsnorm_forward({}, op);
    };
  };
  using Op = RmsnormForward;
  EXPECT_NO_THROW(forward([](Op&) {})());
  expect_error(forward([&](Op& op) { op.y = other.mat(); }), "y is [3, 8]");
  expect_error(forward([&](Op& op) { op.rstd = vec(wrong); }), "rstd has 5 elements");
  expect_error(forward([&](Op& op) { op.weight = vec(wrong); }), "weight has 5 elements");
  expect_error(forward([&](Op& op) { op.eps = kNan; }), "eps is nan");
  expect_error(forward([&](Op& op) { op.x = none.mat(); }), "must be at least 1");
  expect_error(forward([&](Op& op) { op.heads = 3; }), "x has 8 columns for 3 heads");
  expect_error(forward([&](Op& op) { op.heads = 4; }), "weight has 8 elements; it must have 2");
  expect_error(forward([&](Op& op) { op.x.dtype = DType::kBF16; }),
               "y holds f32; it must hold bf16");
  expect_error(forward([&](Op& op) { op.x.dtype = DType::kF16; }), "x holds f16");
  const auto backward = [&](auto&& change) {
    return [&, change] {
      std::vector<float> dweight(8);
      RmsnormBackward op{.dx = y.mat(),
                         .dweight = vec(dweight),
                         .dy = x.mat(),
                         .x = x.mat(),
                         .rstd = vec(rstd),
                         .weight = vec(weight)};
      change(op);
      rmsnorm_backward({}, op);
    };
  };
  using Back = RmsnormBackward;
  expect_error(backward([](Back& op) { op.dy.dtype = DType::kBF16; }),
               "dy holds bf16; it must hold f32");
  expect_error(backward([&](Back& op) { op.dx_rounded = y.mat(); }),
               "dx_rounded holds f32; it must hold bf16");
  expect_error(backward([](Back& op) {
                 op.dx.dtype = op.dy.dtype = op.x.dtype = DType::kBF16;
                 op.accumulate = true;
               }),
               "dx, which is added to, holds bf16");
  expect_error(
      [&] {
        rmsnorm_residual_forward({}, {.h = y.mat(),
                                      .y = y.mat(),
                                      .rstd = vec(rstd),
                                      .x = x.mat(),
                                      .delta = other.mat(),
                                      .weight = vec(weight),
                                      .eps = 1e-5f});
      },
      "delta is [3, 8]");
  expect_error(
      [&] {
        rmsnorm_backward({}, {.dx = y.mat(),
                              .dweight = vec(weight),
                              .dy = x.mat(),
                              .x = x.mat(),
                              .rstd = vec(wrong),
                              .weight = vec(weight)});
      },
      "rstd has 5");
}

TEST(Rmsnorm, AMissingBackendIsNamed) {
  if (kCudaBuilt) GTEST_SKIP() << "no backend is missing";
  const Context gpu{.device = {DeviceType::kCuda, 0}};
  Matrix x(2, 8);
  std::vector<float> weight(8);
  expect_error(
      [&] {
        rmsnorm_forward(gpu, {.y = x.mat(), .x = x.mat(), .weight = vec(weight), .eps = 1e-5f});
      },
      "rmsnorm_forward: this build has no kernels for device cuda:0: use cpu");
}

}  // namespace
}  // namespace orrery::kernels
