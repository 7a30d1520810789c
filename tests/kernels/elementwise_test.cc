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

/// The parts of a sum, of `count` elements each.
Values random_parts(const SumCase& c, int64_t count) {
  Values values;
  for (int64_t p = 0; p < c.parts; ++p) values.push_back(random_vector(count, c.seed + p));
  return values;
}

/// The op, on every target, into memory of its own and into some of its parts.
template <class Op>
void expect_sum(const Values& values, const std::vector<float>& expected,
                void (*op)(const Context&, const Op&)) {
  const int64_t count = std::ssize(expected), parts = std::ssize(values);
  const std::vector<const float*> leaves = pointers(values);
  on_every_target([&](const Context& ctx) {
    std::vector<float> got(count, kNan);
    op(ctx, {.out = vec(got), .parts = leaves});
    EXPECT_TRUE(same_bits(got, expected));
    for (const int64_t place : {int64_t{0}, parts / 2, parts - 1}) {
      Values own = values;
      const std::vector<const float*> own_leaves = pointers(own);
      op(ctx, {.out = vec(own[place]), .parts = own_leaves});
      EXPECT_TRUE(same_bits(own[place], expected)) << "into part " << place;
      for (int64_t p = 0; p < parts; ++p)
        EXPECT_TRUE(p == place || own[p] == values[p]) << "part " << p << " was written to";
    }
  });
}

class NestedSumTest : public testing::TestWithParam<SumCase> {};

TEST_P(NestedSumTest, HasTheBitsOfScalarAdds) {
  for (const int64_t count : kSumCounts) {
    const Values values = random_parts(GetParam(), count);
    std::vector<float> expected = values.back();
    for (int64_t p = GetParam().parts - 2; p >= 0; --p) {
      for (int64_t i = 0; i < count; ++i) expected[i] = values[p][i] + expected[i];
    }
    expect_sum(values, expected, nested_sum);
  }
}

INSTANTIATE_TEST_SUITE_P(Parts, NestedSumTest,
                         testing::ValuesIn(cases_for(kNestedSumCases, kOracle)), CaseName());

TEST(NestedSum, OneAloneIsAnError) {
  std::vector<float> out(4);
  const std::vector<const float*> parts(1, out.data());
  expect_error([&] { nested_sum({}, {.out = vec(out), .parts = parts}); },
               "nested_sum: there are 1 parts; there must be at least 2");
}

class TreeSumTest : public testing::TestWithParam<SumCase> {};

TEST_P(TreeSumTest, HasTheBitsOfTheScalarTree) {
  for (const int64_t count : kSumCounts) {
    const Values values = random_parts(GetParam(), count);
    const std::vector<const float*> leaves = pointers(values);
    std::vector<float> expected(count);
    for (int64_t i = 0; i < count; ++i) expected[i] = tree_sum_of(leaves, i);
    expect_sum(values, expected, tree_sum);
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
