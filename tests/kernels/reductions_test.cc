#include "kernels/reductions.h"

#include <bit>

#include "tests/kernels/cases/flat_cases.h"
#include "tests/kernels/kernel_testing.h"

namespace orrery::kernels {
namespace {
using namespace cases;
using namespace kernel_testing;

/// The definition.
FletcherSums sums_of(const std::vector<float>& x) {
  FletcherSums sums;
  for (const float value : x) {
    sums.low += std::bit_cast<uint32_t>(value);
    sums.high += sums.low;
  }
  return sums;
}

TEST(Checksum, IsTheTwoSumsOfTheDefinition) {
  for (const FlatCase& c : cases_for(kChecksumCases, kOracle)) {
    const std::vector<float> x = random_vector(c.count, c.seed);
    const FletcherSums expected = sums_of(x);
    on_every_target(
        [&](const Context& ctx) { EXPECT_EQ(checksum(ctx, {.x = vec(x)}), expected) << c; });
  }
}

TEST(Checksum, SeesAFlippedBitAndASwap) {
  std::vector<float> x = random_vector(1000, 1);
  const FletcherSums sums = checksum({}, {.x = vec(x)});
  std::swap(x[3], x[900]);
  EXPECT_NE(checksum({}, {.x = vec(x)}), sums);
  std::swap(x[3], x[900]);
  x[500] = std::bit_cast<float>(std::bit_cast<uint32_t>(x[500]) ^ 1u);
  EXPECT_NE(checksum({}, {.x = vec(x)}), sums);
}

TEST(MaxAbs, IsByMagnitude) {
  const std::vector<float> few = {0.0f, -3.0f, 2.0f};
  EXPECT_EQ(max_abs({}, {.x = vec(few)}), 3.0f);
  EXPECT_EQ(max_abs({}, {}), 0.0f);
  for (const FlatCase& c : cases_for(kMaxAbsCases, kOracle)) {
    std::vector<float> many(c.count, 0.5f);
    many[many.size() - 3] = -kNan;
    on_every_target([&](const Context& ctx) { EXPECT_EQ(max_abs(ctx, {.x = vec(many)}), kInf); });
  }
}

}  // namespace
}  // namespace orrery::kernels
