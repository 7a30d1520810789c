// The model of a tensor core's step against outputs of real ones, and by hand. The
// self-test (selftest.cu) holds the same header against the GPU at hand.
#include "kernels/dot16.h"

#include <gtest/gtest.h>

#include <bit>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/gpu/layouts.h"
#include "tests/gpu/operands.h"
#include "tests/support/assets.h"

namespace orrery::selftest {
namespace {

uint32_t f32(float x) { return std::bit_cast<uint32_t>(x); }
uint16_t bf16(float x) { return static_cast<uint16_t>(f32(x) >> 16); }

/// A step whose first products are these and the others zero.
uint32_t step(std::vector<std::pair<float, float>> products, float c) {
  uint16_t a[16] = {}, b[16] = {};
  for (size_t i = 0; i < products.size(); ++i) {
    a[i] = bf16(products[i].first);
    b[i] = bf16(products[i].second);
  }
  return dot_step(a, b, f32(c), kDot16Rz25);
}

TEST(Dot16, SumsWhatFitsExactly) {
  EXPECT_EQ(step({{1.5f, 2.0f}, {-0.25f, 4.0f}}, 0.5f), f32(2.5f));
  EXPECT_EQ(step({{1.0f, 1.0f}}, 0x1p-23f), f32(1.0f + 0x1p-23f));
}

TEST(Dot16, CutsTermsAtTheLargestExponent) {
  // Of 2^-25 a unit is left beside 1, of 2^-26 nothing; two units of 2^-25 reach no
  // f32.
  EXPECT_EQ(step({{1.0f, 1.0f}, {-0x1p-13f, 0x1p-12f}}, 0.0f), f32(1.0f - 0x1p-24f));
  EXPECT_EQ(step({{1.0f, 1.0f}, {-0x1p-13f, 0x1p-13f}}, 0.0f), f32(1.0f));
  EXPECT_EQ(step({{1.0f, 1.0f}, {0x1p-13f, 0x1p-12f}, {0x1p-13f, 0x1p-12f}}, 0.0f), f32(1.0f));
}

TEST(Dot16, CutsTheSumTowardZero) {
  EXPECT_EQ(step({{1.0f, 1.0f}, {0x1p-12f, 0x1p-12f}}, 0.0f), f32(1.0f));
  EXPECT_EQ(step({{-1.0f, 1.0f}, {-0x1p-12f, 0x1p-12f}}, 0.0f), f32(-1.0f));
}

TEST(Dot16, ProductsKeepTheExponentOfTheirFactors) {
  // 1.5 * 1.5 = 2.25 counts with exponent 0: 2^-25 is still a whole unit beside it.
  EXPECT_EQ(step({{1.5f, 1.5f}, {-0x1p-12f, 0x1p-13f}}, -1.75f), f32(0.5f - 0x1p-25f));
}

TEST(Dot16, ZerosAndCancelledSumsArePlusZero) {
  EXPECT_EQ(step({}, -0.0f), 0u);
  EXPECT_EQ(step({{-1.0f, 1.0f}}, 1.0f), 0u);
}

TEST(Dot16, KeepsSubnormalNumbers) {
  EXPECT_EQ(step({{0x1p-100f, 0x1p-49f}}, 0.0f), 1u);
  EXPECT_EQ(step({{0x1p-100f, 0x1p-50f}}, 0.0f), 0u);
  EXPECT_EQ(step({{-0x1p-100f, 0x1p-50f}}, -0.0f), 0u);  // an H100 says +0
  EXPECT_EQ(step({{0x1p-130f, 1.0f}}, 0x1p-149f), f32(0x1p-130f + 0x1p-149f));
}

TEST(Dot16, NotFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(step({{kInf, 2.0f}}, 1.0f), kInfinityBits);
  EXPECT_EQ(step({{kInf, -2.0f}}, 1.0f), kInfinityBits | 0x80000000u);
  EXPECT_EQ(step({{kInf, 1.0f}, {-kInf, 1.0f}}, 0.0f), kDotNan);
  EXPECT_EQ(step({{kInf, 1.0f}}, -kInf), kDotNan);
  EXPECT_EQ(step({{kInf, 0.0f}}, 0.0f), kDotNan);
  EXPECT_EQ(step({{1.0f, 1.0f}}, std::numeric_limits<float>::quiet_NaN()), kDotNan);
}

/// Numbers of a file of the published outputs, each a word of 8 hexadecimal or 32
/// binary digits.
std::vector<uint32_t> words(const std::filesystem::path& path, int base) {
  std::ifstream in(path);
  std::vector<uint32_t> out;
  for (std::string word; in >> word;)
    out.push_back(static_cast<uint32_t>(std::stoull(word, nullptr, base)));
  return out;
}

/// Differences of `model` from the outputs of `card`.
int differences(const std::filesystem::path& folder, const std::string& card, DotClass model) {
  const auto a = words(folder / ("a_" + card + "_bf16.txt"), 16);
  const auto b = words(folder / ("b_" + card + "_bf16.txt"), 16);
  const auto c = words(folder / ("c_" + card + "_fp32.txt"), 2);
  const auto d = words(folder / ("d_" + card + "_fp32.txt"), 2);
  EXPECT_EQ(d.size(), 2000u);
  const size_t k = a.size() / d.size();
  int differing = 0;
  for (size_t i = 0; i < d.size(); ++i) {
    uint16_t left[16], right[16];
    for (size_t j = 0; j < k; ++j) {
      left[j] = static_cast<uint16_t>(a[i * k + j] >> 16);
      right[j] = static_cast<uint16_t>(b[i * k + j] >> 16);
    }
    if (dot_chain(left, right, static_cast<int>(k), c[i], model) != d[i]) ++differing;
  }
  return differing;
}

TEST(Dot16, GivesThePublishedOutputs) {
  ORRERY_NEEDS_ASSET("fixtures/tensor-core");
  const auto folder = testing_support::assets() / "fixtures/tensor-core";
  EXPECT_EQ(differences(folder, "H100", kDot16Rz25), 0);
  EXPECT_EQ(differences(folder, "A100", kDot8Rz24), 0);
  EXPECT_GT(differences(folder, "H100", {8, 25}), 100);
  EXPECT_GT(differences(folder, "H100", {16, 24}), 100);
  EXPECT_GT(differences(folder, "A100", {8, 25}), 20);
}

TEST(Dot16, TileLayoutsPlaceEveryElementOnce) {
  for (const Major major : {Major::kK, Major::kMn})
    for (const int width : {16, 32, 64, 128}) {
      const TileLayout tile{major, width, 128, 64};
      std::vector<int> seen(128 * 64);
      for (int row = 0; row < 128; ++row)
        for (int k = 0; k < 64; ++k) {
          const int offset = tile_offset(tile, row, k);
          ASSERT_EQ(offset % 2, 0);
          ASSERT_LT(offset / 2, static_cast<int>(seen.size()));
          ++seen[static_cast<size_t>(offset / 2)];
        }
      for (const int count : seen) ASSERT_EQ(count, 1) << width;
    }
}

TEST(Dot16, OperandsCoverTheEdges) {
  int zeros = 0, subnormal = 0, not_finite = 0;
  for (int row = 0; row < 2000; ++row)
    for (int k = 0; k < 16; ++k) {
      const int field = operand(1, row, k, false) >> 7 & 0xff;
      const bool no_fraction = (operand(1, row, k, false) & 0x7f) == 0;
      zeros += field == 0 && no_fraction ? 1 : 0;
      subnormal += field == 0 && !no_fraction ? 1 : 0;
      not_finite += field == 0xff ? 1 : 0;
    }
  EXPECT_GT(zeros, 100);
  EXPECT_GT(subnormal, 100);
  EXPECT_GT(not_finite, 5);
}

}  // namespace
}  // namespace orrery::selftest
