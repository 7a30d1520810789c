// exp_f32, exp2_f32 and log_f32: accuracy against double, special values, and the same
// bits for every target.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/kernels/math_test.cc"
#include "kernels/cpu/targets.h"
// After targets.h.
#include "hwy/foreach_target.h"
#include "kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace orrery::kernels::HWY_NAMESPACE {

void exp_array(float* y, const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i + lanes <= count; i += lanes)
    hn::StoreU(exp_f32(d, hn::LoadU(d, x + i)), d, y + i);
}

void exp2_array(float* y, const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i + lanes <= count; i += lanes)
    hn::StoreU(exp2_f32(d, hn::LoadU(d, x + i)), d, y + i);
}

void log_array(float* y, const float* x, int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i + lanes <= count; i += lanes)
    hn::StoreU(log_f32(d, hn::LoadU(d, x + i)), d, y + i);
}

}  // namespace orrery::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/numerics.h"

namespace orrery::kernels {
HWY_EXPORT(exp_array);
HWY_EXPORT(exp2_array);
HWY_EXPORT(log_array);

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Distance of y to the exact value in units of the exact value's last float place.
double ulps(float y, double exact) {
  const auto nearest = static_cast<float>(exact);
  const double ulp =
      static_cast<double>(std::nextafter(std::fabs(nearest), kInf)) - std::fabs(nearest);
  return std::fabs(static_cast<double>(y) - exact) / ulp;
}

/// Every 997th float pattern: all exponents, both signs, NaNs, denormals; plus the
/// special values. A multiple of 64.
std::vector<float> sweep() {
  std::vector<float> x = {0.0f,   -0.0f,          1.0f,
                          -1.0f,  kInf,           -kInf,
                          kNan,   kExpUnderflow,  std::nextafter(kExpUnderflow, -kInf),
                          2.0f,   kExpOverflow,   std::nextafter(kExpOverflow, kInf),
                          1e-45f, 1e38f,          0.5f,
                          -0.5f,  kExp2Overflow,  std::nextafter(kExp2Overflow, 0.0f),
                          1.5f,   kExp2Underflow, std::nextafter(kExp2Underflow, -kInf)};
  for (uint64_t bits = 0; bits <= 0xffffffffull; bits += 997)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  for (int i = -200000; i <= 200000; ++i) x.push_back(static_cast<float>(i) * 4.7e-4f);
  while (x.size() % 64 != 0) x.push_back(0.25f);
  return x;
}

bool same(float a, float b) {
  if (a != a || b != b) return a != a && b != b;
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

TEST(Math, ExpIsWithinOneUlpOfDouble) {
  double worst = 0.0;
  for (const float x : sweep()) {
    if (!(x >= kExpUnderflow && x <= kExpOverflow)) continue;
    worst = std::max(worst, ulps(exp_f32(x), std::exp(static_cast<double>(x))));
    if (x <= 0.0f) {
      ASSERT_LE(exp_f32(x), 1.0f) << x;
    }
  }
  EXPECT_LE(worst, 1.0);
}

TEST(Math, Exp2IsNearDouble) {
  double worst = 0.0;
  for (const float x : sweep()) {
    if (!(x >= kExp2Underflow && x < kExp2Overflow)) continue;
    worst = std::max(worst, ulps(exp2_f32(x), std::exp2(static_cast<double>(x))));
    if (x <= 0.0f) {
      ASSERT_LE(exp2_f32(x), 1.0f) << x;
    }
  }
  EXPECT_LE(worst, 2.1);
}

TEST(Math, LogIsWithinTwoUlpsOfDouble) {
  double worst = 0.0;
  for (const float x : sweep()) {
    if (!(x >= std::numeric_limits<float>::min() && x < kInf) || x == 1.0f) continue;
    worst = std::max(worst, ulps(log_f32(x), std::log(static_cast<double>(x))));
  }
  for (int i = 0; i < 100000; ++i) {  // what softmax sums look like near 1
    const float x = std::bit_cast<float>(0x3f800001u + static_cast<uint32_t>(i) * 13u);
    worst = std::max(worst, ulps(log_f32(x), std::log(static_cast<double>(x))));
  }
  EXPECT_LE(worst, 2.0);
}

TEST(Math, SpecialValues) {
  EXPECT_TRUE(same(exp_f32(0.0f), 1.0f));
  EXPECT_TRUE(same(exp_f32(-0.0f), 1.0f));
  EXPECT_TRUE(same(exp_f32(-kInf), 0.0f));
  EXPECT_TRUE(same(exp_f32(-1e30f), 0.0f));
  EXPECT_TRUE(same(exp_f32(kInf), kInf));
  EXPECT_TRUE(std::isnan(exp_f32(kNan)));
  EXPECT_GE(exp_f32(kExpUnderflow), std::numeric_limits<float>::min());
  EXPECT_LT(exp_f32(kExpOverflow), kInf);
  EXPECT_TRUE(same(exp2_f32(0.0f), 1.0f));
  EXPECT_TRUE(same(exp2_f32(-0.0f), 1.0f));
  EXPECT_TRUE(same(exp2_f32(-kInf), 0.0f));
  EXPECT_TRUE(same(exp2_f32(kInf), kInf));
  EXPECT_TRUE(std::isnan(exp2_f32(kNan)));
  for (int n = -125; n < 127; ++n)
    EXPECT_TRUE(same(exp2_f32(static_cast<float>(n)), std::ldexp(1.0f, n)));
  EXPECT_TRUE(same(log_f32(1.0f), 0.0f));
  EXPECT_TRUE(same(log_f32(0.0f), -kInf));
  EXPECT_TRUE(same(log_f32(kInf), kInf));
  EXPECT_TRUE(std::isnan(log_f32(-1.0f)));
  EXPECT_TRUE(std::isnan(log_f32(kNan)));
}

TEST(Math, VectorsHaveTheBitsOfTheScalarFunctions) {
  const std::vector<float> x = sweep();
  std::vector<float> y(x.size());
  for (const auto& target : supported_cpu_targets()) {
    set_cpu_target(target);
    HWY_DYNAMIC_DISPATCH(exp_array)(y.data(), x.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(same(y[i], exp_f32(x[i]))) << target << " exp " << x[i];
    HWY_DYNAMIC_DISPATCH(exp2_array)(y.data(), x.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(same(y[i], exp2_f32(x[i]))) << target << " exp2 " << x[i];
    HWY_DYNAMIC_DISPATCH(log_array)(y.data(), x.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i)
      ASSERT_TRUE(same(y[i], log_f32(x[i]))) << target << " log " << x[i];
  }
  set_cpu_target("best");
}

}  // namespace
}  // namespace orrery::kernels
#endif
