#include "kernels/swiglu.h"

#include "kernels/scalar_math.h"
#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/swiglu_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

class SwigluTest : public testing::TestWithParam<SwigluCase> {};

double silu(double g) { return g / (1.0 + std::exp(-g)); }

TEST_P(SwigluTest, HasTheBitsOfScalarCodeAndAgreesWithDouble) {
  const int64_t tokens = GetParam().tokens, width = GetParam().width;
  const float scale = GetParam().scale;
  const double tolerance = GetParam().tolerance;
  const Matrix x = Matrix::random(tokens, 2 * width, GetParam().seed, scale);
  const Matrix dout = Matrix::random(tokens, width, GetParam().seed + 1);
  Matrix out(tokens, width), dx(tokens, 2 * width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < width; ++j) {
      const float g = x(t, j), u = x(t, width + j), d = dout(t, j);
      const float divisor = 1.0f + exp_f32(-g);
      out(t, j) = g / divisor * u;
      const float s = 1.0f / divisor;
      dx(t, width + j) = d * (g * s);
      dx(t, j) = d * u * (s * std::fma(g, 1.0f - s, 1.0f));
      const double exact = silu(g) * static_cast<double>(u);
      EXPECT_NEAR(out(t, j), exact, tolerance * std::max(1.0, std::fabs(exact)));
      const auto at = [&](double gate, double up) {
        return silu(gate) * up * static_cast<double>(d);
      };
      EXPECT_NEAR(dx(t, j), (at(g + 1e-5, u) - at(g - 1e-5, u)) / 2e-5,
                  1e-5 * std::max(1.0f, scale * scale));
      EXPECT_NEAR(dx(t, width + j), (at(g, u + 1e-5) - at(g, u - 1e-5)) / 2e-5,
                  1e-5 * std::max(1.0f, scale));
    }
  }
  on_every_target([&](const Context& ctx) {
    Matrix got(tokens, width), dgot(tokens, 2 * width);
    swiglu_forward(ctx, {.out = got.mat(), .gate_up = x.mat()});
    EXPECT_TRUE(same_bits(got.values, out.values));
    swiglu_backward(ctx, {.d_gate_up = dgot.mat(), .dout = dout.mat(), .gate_up = x.mat()});
    EXPECT_TRUE(same_bits(dgot.values, dx.values));
    Matrix in_place = x;
    swiglu_backward(ctx,
                    {.d_gate_up = in_place.mat(), .dout = dout.mat(), .gate_up = in_place.mat()});
    EXPECT_TRUE(same_bits(in_place.values, dx.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwigluTest,
                         testing::ValuesIn(of_type(cases_for(kSwigluCases, kTest), DType::kF32)),
                         CaseName());

class SwigluBf16Test : public testing::TestWithParam<SwigluCase> {};

TEST_P(SwigluBf16Test, RoundsWhatScalarCodeGives) {
  const int64_t tokens = GetParam().tokens, width = GetParam().width;
  const Matrix x = rounded(Matrix::random(tokens, 2 * width, GetParam().seed, GetParam().scale));
  const Matrix dout = rounded(Matrix::random(tokens, width, GetParam().seed + 1));
  Matrix out(tokens, width), dx(tokens, 2 * width);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < width; ++j) {
      const float g = x(t, j), u = x(t, width + j), d = dout(t, j);
      const float divisor = 1.0f + exp_f32(-g), s = 1.0f / divisor;
      out(t, j) = rounded(g / divisor * u);
      dx(t, width + j) = rounded(d * (g * s));
      dx(t, j) = rounded(d * u * (s * std::fma(g, 1.0f - s, 1.0f)));
    }
  }
  out = rounded(out), dx = rounded(dx);  // their padding
  on_every_target([&](const Context& ctx) {
    Bf16Matrix got(tokens, width), in_place(x);
    const Bf16Matrix gate_up(x), dout_bf16(dout);
    swiglu_forward(ctx, {.out = got.mat(), .gate_up = gate_up.mat()});
    EXPECT_TRUE(same_bits(got.values(), out.values));
    Bf16Matrix dgot(tokens, 2 * width);
    swiglu_backward(ctx,
                    {.d_gate_up = dgot.mat(), .dout = dout_bf16.mat(), .gate_up = gate_up.mat()});
    EXPECT_TRUE(same_bits(dgot.values(), dx.values));
    swiglu_backward(
        ctx, {.d_gate_up = in_place.mat(), .dout = dout_bf16.mat(), .gate_up = in_place.mat()});
    EXPECT_TRUE(same_bits(in_place.values(), dx.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwigluBf16Test,
                         testing::ValuesIn(of_type(cases_for(kSwigluCases, kOracle), DType::kBF16)),
                         CaseName());

TEST(Swiglu, ExtremeGatesStayFinite) {
  Matrix x(1, 2 * 17), out(1, 17), dx(1, 2 * 17), dout(1, 17);
  for (int64_t j = 0; j < 17; ++j) {
    x(0, j) = j % 2 == 0 ? -1e4f : 1e4f;
    x(0, 17 + j) = 2.0f;
    dout(0, j) = 1.0f;
  }
  swiglu_forward({}, {.out = out.mat(), .gate_up = x.mat()});
  swiglu_backward({}, {.d_gate_up = dx.mat(), .dout = dout.mat(), .gate_up = x.mat()});
  for (int64_t j = 0; j < 17; ++j) {
    EXPECT_EQ(out(0, j), j % 2 == 0 ? 0.0f : 2e4f);
    EXPECT_EQ(dx(0, j), j % 2 == 0 ? 0.0f : 2.0f);
    EXPECT_EQ(dx(0, 17 + j), j % 2 == 0 ? 0.0f : 1e4f);
  }
}

TEST(Swiglu, BadShapesAreErrors) {
  Matrix x(2, 6), odd(2, 7), out(2, 3), short_out(1, 3);
  Bf16Matrix narrow(2, 3);
  expect_error([&] { swiglu_forward({}, {.out = narrow.mat(), .gate_up = x.mat()}); },
               "gate_up holds f32; it must hold bf16");
  expect_error(
      [&] {
        swiglu_backward({}, {.d_gate_up = x.mat(), .dout = narrow.mat(), .gate_up = x.mat()});
      },
      "gate_up holds f32; it must hold bf16");
  expect_error([&] { swiglu_forward({}, {.out = out.mat(), .gate_up = odd.mat()}); },
               "gate_up is [2, 7]; it must be [2, 6]");
  expect_error([&] { swiglu_forward({}, {.out = short_out.mat(), .gate_up = x.mat()}); },
               "gate_up is [2, 6]; it must be [1, 6]");
  expect_error(
      [&] { swiglu_backward({}, {.d_gate_up = odd.mat(), .dout = out.mat(), .gate_up = x.mat()}); },
      "d_gate_up is [2, 7]");
  expect_error([&] { swiglu_forward({}, {.out = Mat<float>(nullptr, 2, 3), .gate_up = x.mat()}); },
               "no memory");
  expect_error(
      [&] {
        swiglu_forward({}, {.out = Mat<float>(out.values.data(), 2, 3, 2), .gate_up = x.mat()});
      },
      "stride 2");
}

}  // namespace
}  // namespace orrery::kernels
