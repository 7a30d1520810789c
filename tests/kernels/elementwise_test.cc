#include "kernels/elementwise.h"

#include "tests/kernels/cases/flat_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

TEST(Fill, WritesEveryElementAndTouchesNothingElse) {
  for (const float value : {0.0f, -0.0f, 2.5f}) {
    for (const FlatCase& c : cases_for(kFillCases, kOracle)) {
      const int64_t count = c.count;
      on_every_target([&](const Context& ctx) {
        std::vector<float> got(count + 2, kNan);
        fill(ctx, {.y = vec(got).part(1, count), .value = value});
        EXPECT_TRUE(std::isnan(got.front()) && std::isnan(got.back()));
        const std::vector<float> inner(got.begin() + 1, got.end() - 1);
        EXPECT_TRUE(same_bits(inner, std::vector<float>(count, value)));
      });
    }
  }
}

TEST(Accumulate, AddsElementwise) {
  for (const FlatCase& c : cases_for(kAccumulateCases, kOracle)) {
    SCOPED_TRACE(c.name);
    const std::vector<float> x = random_vector(c.count, c.seed),
                             y = random_vector(c.count, c.seed + 1);
    std::vector<float> expected = y;
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += x[i];
    on_every_target([&](const Context& ctx) {
      std::vector<float> got = y;
      accumulate(ctx, {.y = vec(got), .x = vec(x)});
      EXPECT_TRUE(same_bits(got, expected));
    });
  }
}

TEST(Accumulate, OtherLengthsAreAnError) {
  std::vector<float> y(4), three(3);
  expect_error([&] { accumulate({}, {.y = vec(y), .x = vec(three)}); }, "x has 3 elements");
}

/// The definition: leaves of a complete binary tree, every node left + right.
float tree_sum_of(Span<const float* const> parts, int64_t element) {
  if (parts.size() == 1) return parts[0][element];
  const int64_t half = parts.size() / 2;
  const float left = tree_sum_of(parts.first(half), element);
  const float right = tree_sum_of(parts.subspan(half), element);
  return left + right;
}

using Values = std::vector<std::vector<float>>;

std::vector<const float*> pointers(const Values& values) {
  std::vector<const float*> parts;
  for (const auto& part : values) parts.push_back(part.data());
  return parts;
}

class TreeSumTest : public testing::TestWithParam<TreeSumCase> {};

TEST_P(TreeSumTest, HasTheBitsOfTheScalarTree) {
  const int64_t parts = GetParam().parts;
  for (const int64_t count : kTreeSumCounts) {
    Values values;
    for (int64_t p = 0; p < parts; ++p) values.push_back(random_vector(count, GetParam().seed + p));
    std::vector<float> expected(count);
    const std::vector<const float*> leaves = pointers(values);
    for (int64_t i = 0; i < count; ++i) expected[i] = tree_sum_of(leaves, i);
    on_every_target([&](const Context& ctx) {
      std::vector<float> got(count, kNan);
      tree_sum(ctx, {.out = vec(got), .parts = leaves});
      EXPECT_TRUE(same_bits(got, expected));
      for (const int64_t place : {int64_t{0}, parts / 2, parts - 1}) {
        Values own = values;
        const std::vector<const float*> own_leaves = pointers(own);
        tree_sum(ctx, {.out = vec(own[place]), .parts = own_leaves});
        EXPECT_TRUE(same_bits(own[place], expected)) << "into part " << place;
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, TreeSumTest, testing::ValuesIn(cases_for(kTreeSumCases, kOracle)),
                         CaseName());

TEST(TreeSum, TakesTheDeepestTree) {
  // Every leaf is one of 256 numbers, whose pattern repeats: the sum of each subtree of
  // 256 leaves is the same, so that the levels above it only double.
  const std::vector<float> numbers = random_vector(256, 1);
  std::vector<const float*> parts;
  for (int64_t p = 0; p < int64_t{1} << kMaxTreeLevels; ++p)
    parts.push_back(numbers.data() + p % 256);
  std::vector<float> got(1);
  tree_sum({}, {.out = vec(got), .parts = parts});
  EXPECT_EQ(got[0], 256.0f * tree_sum_of(Span<const float* const>(parts).first(256), 0));
}

TEST(TreeSum, OtherNumbersOfPartsAreErrors) {
  std::vector<float> out(4);
  for (const int64_t count : {0, 1, 3, 6, 2 << kMaxTreeLevels}) {
    const std::vector<const float*> parts(count, out.data());
    expect_error(
        [&] { tree_sum({}, {.out = vec(out), .parts = parts}); },
        "tree_sum: there are " + std::to_string(count) + " parts; there must be a power of two");
  }
}

}  // namespace
}  // namespace orrery::kernels
