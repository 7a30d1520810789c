#include "kernels/optimizer.h"

#include "tests/kernels/cases/flat_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

class AdamWTest : public testing::TestWithParam<FlatCase> {};

TEST_P(AdamWTest, HasTheBitsOfScalarCodeAndAgreesWithDouble) {
  const int64_t count = GetParam().count;
  const AdamWParams params{
      .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f};
  const float grad_scale = 0.37f;
  const std::vector<float> start = random_vector(count, GetParam().seed);
  std::vector<float> w = start, m(start.size()), v(start.size());
  std::vector<double> wd = to_double(start), md(start.size()), vd(start.size());
  const auto gradient = [&](int64_t t) {
    return random_vector(count, 100 + static_cast<uint64_t>(t));
  };
  constexpr int64_t kSteps = 5;
  for (int64_t t = 1; t <= kSteps; ++t) {
    const std::vector<float> grad = gradient(t);
    double power1 = 1.0, power2 = 1.0;
    for (int64_t i = 0; i < t; ++i) {
      power1 *= static_cast<double>(params.beta1);
      power2 *= static_cast<double>(params.beta2);
    }
    const double lr = params.lr;
    const auto step_size = static_cast<float>(lr / (1.0 - power1));
    const auto inv_sqrt_bias2 = static_cast<float>(1.0 / std::sqrt(1.0 - power2));
    const auto decay = static_cast<float>(lr * params.weight_decay);
    for (size_t i = 0; i < w.size(); ++i) {
      const float g = grad[i] * grad_scale;
      m[i] = std::fma(params.beta1, m[i], (1.0f - params.beta1) * g);
      v[i] = std::fma(params.beta2, v[i], (1.0f - params.beta2) * g * g);
      const float update = m[i] / std::fma(std::sqrt(v[i]), inv_sqrt_bias2, params.eps);
      w[i] -= std::fma(step_size, update, decay * w[i]);
      // The textbook, in double.
      const double gd = static_cast<double>(grad[i]) * static_cast<double>(grad_scale);
      const double b1 = params.beta1, b2 = params.beta2;
      md[i] = b1 * md[i] + (1.0 - b1) * gd;
      vd[i] = b2 * vd[i] + (1.0 - b2) * gd * gd;
      wd[i] -= lr * static_cast<double>(params.weight_decay) * wd[i];
      wd[i] -= lr * (md[i] / (1.0 - power1)) /
               (std::sqrt(vd[i] / (1.0 - power2)) + static_cast<double>(params.eps));
    }
  }
  EXPECT_TRUE(close(w, wd, 1e-6));
  EXPECT_TRUE(close(m, md, 1e-6));
  EXPECT_TRUE(close(v, vd, 1e-6));
  on_every_target([&](const Context& ctx) {
    std::vector<float> got_w = start, got_m(start.size()), got_v(start.size());
    for (int64_t t = 1; t <= kSteps; ++t) {
      const std::vector<float> grad = gradient(t);
      adamw_step(ctx, {.w = vec(got_w),
                       .m = vec(got_m),
                       .v = vec(got_v),
                       .grad = vec(grad),
                       .params = params,
                       .t = t,
                       .grad_scale = grad_scale});
    }
    EXPECT_TRUE(same_bits(got_w, w));
    EXPECT_TRUE(same_bits(got_m, m));
    EXPECT_TRUE(same_bits(got_v, v));
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, AdamWTest, testing::ValuesIn(cases_for(kAdamwCases, kOracle)),
                         CaseName());

TEST(AdamW, SlicesGiveTheBitsOfTheWhole) {
  const int64_t count = 5000, cut = 1234;
  const auto whole = [](std::vector<float>& w, std::vector<float>& m, std::vector<float>& v,
                        const std::vector<float>& grad) {
    return AdamwStep{.w = vec(w), .m = vec(m), .v = vec(v), .grad = vec(grad), .t = 3};
  };
  const std::vector<float> grad = random_vector(count, 2);
  std::vector<float> w = random_vector(count, 1), m(w.size()), v(w.size());
  std::vector<float> w2 = w, m2 = m, v2 = v;
  adamw_step({}, whole(w, m, v, grad));
  for (const auto& [begin, size] : {std::pair<int64_t, int64_t>{0, cut}, {cut, count - cut}}) {
    AdamwStep op = whole(w2, m2, v2, grad);
    for (Vec<float>* values : {&op.w, &op.m, &op.v}) *values = values->part(begin, size);
    op.grad = op.grad.part(begin, size);
    adamw_step({}, op);
  }
  EXPECT_TRUE(same_bits(w2, w));
  EXPECT_TRUE(same_bits(m2, m));
  EXPECT_TRUE(same_bits(v2, v));
}

TEST(AdamW, ZeroGradientOnlyDecays) {
  std::vector<float> w = {2.0f, -4.0f}, m(2), v(2);
  const std::vector<float> grad(2);
  adamw_step({}, {.w = vec(w),
                  .m = vec(m),
                  .v = vec(v),
                  .grad = vec(grad),
                  .params = {.lr = 0.5f, .weight_decay = 0.25f},
                  .t = 1});
  EXPECT_EQ(w, (std::vector<float>{1.75f, -3.5f}));
}

TEST(AdamW, BadArgumentsAreErrors) {
  std::vector<float> w(4), m(4), v(4), grad(4), three(3);
  const auto step = [&](AdamWParams params, int64_t t, float scale) {
    const AdamwStep op{.w = vec(w),
                       .m = vec(m),
                       .v = vec(v),
                       .grad = vec(std::as_const(grad)),
                       .params = params,
                       .t = t,
                       .grad_scale = scale};
    return [op] { adamw_step({}, op); };
  };
  expect_error(step({}, 0, 1.0f), "step is 0");
  expect_error(step({}, 1, kNan), "grad_scale is nan");
  expect_error(step({.lr = kInf}, 1, 1.0f), "lr is inf");
  expect_error(step({.beta1 = 1.0f}, 1, 1.0f), "beta1 is 1");
  expect_error(step({.beta2 = -0.1f}, 1, 1.0f), "beta2 is -0.1");
  expect_error(step({.eps = 0.0f}, 1, 1.0f), "eps is 0");
  expect_error(step({.weight_decay = -1.0f}, 1, 1.0f), "weight_decay is -1");
  expect_error(
      [&] { adamw_step({}, {.w = vec(w), .m = vec(m), .v = vec(v), .grad = vec(three), .t = 1}); },
      "grad has 3 elements; it must have 4");
}

TEST(SumSquares, ChunksAreLanesSums) {
  for (const FlatCase& c : cases_for(kSumSquaresCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const int64_t count = c.count;
    const std::vector<float> x = random_vector(count, c.seed);
    std::vector<float> expected;
    double total = 0.0;
    for (int64_t first = 0; first < count; first += kNormChunk) {
      expected.push_back(lanes_sum(std::min(kNormChunk, count - first), [&](int64_t i, float acc) {
        const float value = x[static_cast<size_t>(first + i)];
        total += static_cast<double>(value) * value;
        return std::fma(value, value, acc);
      }));
    }
    on_every_target([&](const Context& ctx) {
      std::vector<float> got(expected.size());
      sum_squares_chunks(ctx, {.sums = vec(got), .x = vec(x)});
      EXPECT_TRUE(same_bits(got, expected));
      double sum = 0.0;
      for (const float part : got) sum += part;
      EXPECT_NEAR(sum, total, 1e-4 * total);
    });
    std::vector<float> wrong(expected.size() + 1);
    expect_error([&] { sum_squares_chunks({}, {.sums = vec(wrong), .x = vec(x)}); }, "sums has");
  }
}

}  // namespace
}  // namespace orrery::kernels
