#include "kernels/rope.h"

#include "tests/kernels/bf16_testing.h"
#include "tests/kernels/cases/rope_cases.h"
#include "tests/kernels/kernel_testing.h"
#include "tests/kernels/rope_oracle.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;
using rope_test::HostTable;
using rope_test::rotate;

/// Inverse frequencies and attention factor that transformers 5.23
/// (modeling_rope_utils) computes in float32.
struct Golden {
  std::string name;
  RopeConfig config;
  double scale;
  std::vector<std::pair<size_t, double>> frequencies;
};

using Type = RopeScaling::Type;

const std::vector<Golden>& goldens() {
  static const std::vector<Golden> list = {
      {"none",
       {.head_dim = 64, .theta = 10000.0, .scaling = {}},
       1.0,
       {{0, 1},
        {1, 0.749894202},
        {8, 0.100000001},
        {16, 0.00999999978},
        {24, 0.00100000005},
        {31, 0.00013335215}}},
      {"linear",
       {.head_dim = 16, .theta = 10000.0, .scaling = {.type = Type::kLinear, .factor = 4.0}},
       1.0,
       {{0, 0.25}, {1, 0.079056941}, {2, 0.0250000004}, {4, 0.00249999994}, {7, 7.90569466e-05}}},
      {"llama31",
       {.head_dim = 128,
        .theta = 500000.0,
        .scaling = {.type = Type::kLlama3,
                    .factor = 8.0,
                    .original_max_position_embeddings = 8192}},
       1.0,
       {{0, 1},
        {1, 0.814617217},
        {16, 0.0376060307},
        {21, 0.0134904208},
        {32, 0.000524846022},
        {40, 3.42810235e-05},
        {48, 6.64787058e-06},
        {63, 3.06892588e-07}}},
      {"llama3_small",
       {.head_dim = 24,
        .theta = 10000.0,
        .scaling = {.type = Type::kLlama3,
                    .factor = 32.0,
                    .original_max_position_embeddings = 256}},
       1.0,
       {{0, 1},
        {1, 0.464158893},
        {3, 0.100000001},
        {4, 0.014807513},
        {6, 0.000312499993},
        {7, 0.000145049678},
        {11, 6.73260683e-06}}},
      {"yarn_qwen",
       {.head_dim = 128,
        .theta = 1000000.0,
        .scaling = {.type = Type::kYarn, .factor = 4.0, .original_max_position_embeddings = 32768}},
       1.138629436111989,
       {{0, 1},
        {1, 0.805842221},
        {16, 0.0316227786},
        {21, 0.0107460786},
        {32, 0.000602941145},
        {40, 4.44569851e-05},
        {48, 7.90569356e-06},
        {63, 3.10234441e-07}}},
      {"yarn_not_truncated",
       {.head_dim = 64,
        .theta = 150000.0,
        .scaling = {.type = Type::kYarn,
                    .factor = 32.0,
                    .original_max_position_embeddings = 4096,
                    .truncate = false}},
       1.3465735902799727,
       {{0, 1},
        {1, 0.689044297},
        {8, 0.05081328},
        {10, 0.0193350017},
        {16, 0.000456483918},
        {20, 1.8188337e-05},
        {24, 4.09997847e-06},
        {31, 3.0235114e-07}}},
      {"yarn_mscale",
       {.head_dim = 64,
        .theta = 10000.0,
        .scaling = {.type = Type::kYarn,
                    .factor = 40.0,
                    .original_max_position_embeddings = 4096,
                    .mscale = 0.707,
                    .mscale_all_dim = 1.0}},
       0.9210423553163399,
       {{0, 1},
        {8, 0.100000001},
        {10, 0.0562341288},
        {16, 0.00550000044},
        {20, 0.000790569407},
        {31, 3.33380353e-06}}},
      {"yarn_attention_factor",
       {.head_dim = 32,
        .theta = 10000.0,
        .scaling = {.type = Type::kYarn,
                    .factor = 2.0,
                    .original_max_position_embeddings = 2048,
                    .beta_fast = 16.0,
                    .beta_slow = 2.0,
                    .attention_factor = 1.25}},
       1.25,
       {{0, 1},
        {4, 0.100000001},
        {5, 0.0562341288},
        {8, 0.00624999963},
        {10, 0.00158113893},
        {15, 8.89139701e-05}}},
      {"yarn_empty_range",  // both ends of the correction range fall together
       {.head_dim = 8,
        .theta = 10000.0,
        .scaling = {.type = Type::kYarn, .factor = 2.0, .original_max_position_embeddings = 4}},
       1.0693147180559945,
       {{0, 1}, {1, 0.0500000007}, {2, 0.00499999989}, {3, 0.000500000024}}},
  };
  return list;
}

TEST(RopeTable, MatchesTransformers) {
  for (const Golden& golden : goldens()) {
    SCOPED_TRACE(golden.name);
    const HostTable table(golden.config, 1000);
    const int64_t half = golden.config.head_dim / 2;
    ASSERT_EQ(table.cos.size(), 1000 * half);
    for (const int64_t position : {0, 1, 63, 64, 129, 999}) {
      for (const auto& [i, frequency] : golden.frequencies) {
        const int64_t at = position * half + i;
        const double angle = position * frequency;
        // Theirs has float32 frequencies.
        const double tolerance = golden.scale * (2e-7 + 5e-7 * angle);
        EXPECT_NEAR(table.cos[at], golden.scale * std::cos(angle), tolerance)
            << position << " " << i;
        EXPECT_NEAR(table.sin[at], golden.scale * std::sin(angle), tolerance)
            << position << " " << i;
      }
    }
  }
}

TEST(RopeTable, IsTheRoundedDoubleAtLongContexts) {
  const HostTable table({.head_dim = 8, .theta = 10000.0, .scaling = {}}, 70000);
  for (int64_t p = 0; p < 70000; p += 331) {
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = static_cast<double>(p) / std::pow(10000.0, static_cast<double>(i) / 4.0);
      const int64_t at = p * 4 + i;
      ASSERT_NEAR(table.cos[at], std::cos(angle), 6e-8) << p << " " << i;
      ASSERT_NEAR(table.sin[at], std::sin(angle), 6e-8) << p << " " << i;
    }
  }
}

TEST(RopeTable, BadConfigsAreErrors) {
  const auto build = [](RopeConfig config, int64_t positions) {
    return [=] { build_rope_table({}, config, positions); };
  };
  const RopeConfig good{.head_dim = 8, .theta = 10000.0, .scaling = {}};
  const auto with = [&](RopeScaling scaling) {
    RopeConfig config = good;
    config.scaling = scaling;
    return config;
  };
  expect_error(build({.head_dim = 7, .theta = 10000.0, .scaling = {}}, 4), "head_dim is 7");
  expect_error(build({.head_dim = 0, .theta = 10000.0, .scaling = {}}, 4), "head_dim is 0");
  expect_error(build({.head_dim = 8, .theta = -1.0, .scaling = {}}, 4), "rope_theta");
  expect_error(build(good, -1), "-1 positions");
  expect_error(build(good, int64_t{1} << 60), "out of range");
  expect_error(build(with({.type = Type::kLinear, .factor = 0.0}), 4), "rope_scaling.factor is 0");
  expect_error(build(with({.type = Type::kLlama3, .factor = 8.0}), 4),
               "original_max_position_embeddings");
  expect_error(build(with({.type = Type::kLlama3,
                           .factor = 8.0,
                           .low_freq_factor = 4.0,
                           .high_freq_factor = 4.0,
                           .original_max_position_embeddings = 8}),
                     4),
               "high_freq_factor");
  expect_error(build(with({.type = Type::kYarn, .factor = 8.0}), 4),
               "original_max_position_embeddings");
  RopeConfig flat =
      with({.type = Type::kYarn, .factor = 8.0, .original_max_position_embeddings = 8});
  flat.theta = 1.0;
  expect_error(build(flat, 4), "greater than 1 for yarn");
}

class RopeTest : public testing::TestWithParam<RopeCase> {};

TEST_P(RopeTest, BackwardHasTheBitsOfScalarCodeAndIsTheTransposeOfTheForward) {
  const int64_t tokens = GetParam().tokens, heads = GetParam().heads,
                head_dim = GetParam().head_dim;
  const HostTable table({.head_dim = head_dim, .theta = 10000.0, .scaling = {}}, 300);
  const Matrix x = Matrix::random(tokens, heads * head_dim, GetParam().seed),
               dy = Matrix::random(tokens, heads * head_dim, GetParam().seed + 1);
  const std::vector<int32_t> at = scattered_ids(tokens, 300);
  Matrix y = x, dx = dy;
  rotate(y, heads, table, at);
  rotate(dx, heads, table, at, {.back = true});
  for (int64_t t = 0; t < tokens; ++t) {
    double forward_dot = 0.0, backward_dot = 0.0;
    for (int64_t j = 0; j < heads * head_dim; ++j) {
      forward_dot += static_cast<double>(y(t, j)) * dy(t, j);
      backward_dot += static_cast<double>(dx(t, j)) * x(t, j);
    }
    ASSERT_NEAR(forward_dot, backward_dot,
                1e-4);  // <R x, dy> = <x, R^T dy>: the gradient of a linear map
  }
  on_every_target([&](const Context& ctx) {
    Matrix got = dy;
    rope_backward(ctx, {.dx = got.mat(), .heads = heads, .rotation = table.rotation(at)});
    EXPECT_TRUE(same_bits(got.values, dx.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeTest,
                         testing::ValuesIn(of_type(cases_for(kRopeCases, kTest), DType::kF32)),
                         CaseName());

class RopeBf16Test : public testing::TestWithParam<RopeCase> {};

TEST_P(RopeBf16Test, RoundsWhatScalarCodeGives) {
  const int64_t tokens = GetParam().tokens, heads = GetParam().heads,
                head_dim = GetParam().head_dim;
  const HostTable table({.head_dim = head_dim, .theta = 10000.0, .scaling = {}}, 300);
  const Matrix dy = rounded(Matrix::random(tokens, heads * head_dim, GetParam().seed));
  const std::vector<int32_t> at = scattered_ids(tokens, 300);
  Matrix dx = dy;
  rotate(dx, heads, table, at, {.back = true, .rounds = true});
  on_every_target([&](const Context& ctx) {
    Bf16Matrix got(dy);
    rope_backward(ctx, {.dx = got.mat(), .heads = heads, .rotation = table.rotation(at)});
    EXPECT_TRUE(same_bits(got.values(), dx.values));
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, RopeBf16Test,
                         testing::ValuesIn(of_type(cases_for(kRopeCases, kOracle), DType::kBF16)),
                         CaseName());

TEST(Rope, TurnsByTheAngleOfThePosition) {
  const HostTable table({.head_dim = 4, .theta = 100.0, .scaling = {}}, 8);
  Matrix x(1, 4);
  const double before[] = {1.0, 2.0, 3.0, 4.0};
  for (int64_t i = 0; i < 4; ++i) x(0, i) = static_cast<float>(before[i]);
  rotate(x, 1, table, {7});
  for (const int64_t i : {0, 1}) {
    const double angle = 7.0 / std::pow(100.0, static_cast<double>(i) / 2.0);
    EXPECT_NEAR(x(0, i), before[i] * std::cos(angle) - before[i + 2] * std::sin(angle), 1e-6);
    EXPECT_NEAR(x(0, i + 2), before[i] * std::sin(angle) + before[i + 2] * std::cos(angle), 1e-6);
  }
}

TEST(Rope, BadShapesAreErrors) {
  const HostTable table({.head_dim = 4, .theta = 10000.0, .scaling = {}}, 6);
  Matrix x = Matrix::random(2, 8, 1);
  const Matrix before = x;
  const std::vector<int32_t> three = {0, 1, 2}, good = {0, 1};
  const auto op = [&](int64_t heads, const std::vector<int32_t>& positions) {
    return RopeBackward{.dx = x.mat(), .heads = heads, .rotation = table.rotation(positions)};
  };
  expect_error([&] { rope_backward({}, op(2, three)); }, "positions has 3 elements");
  expect_error([&] { rope_backward({}, op(1, good)); }, "dx is [2, 8]; it must be [2, 4]");
  expect_error([&] { rope_backward({}, op(0, good)); }, "heads is 0");
  expect_error(
      [&] {
        RopeBackward bad = op(2, good);
        bad.rotation.sin = bad.rotation.sin.row_range(0, 5);
        rope_backward({}, bad);
      },
      "sin is [5, 2]; it must be [6, 2]");
  EXPECT_TRUE(same_bits(x.values, before.values));
}

}  // namespace
}  // namespace orrery::kernels
