#include "learners/losses/importance_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace orrery::learners {
namespace {

TEST(ImportanceWeight, IsTheBoundedRatio) {
  EXPECT_EQ(importance_weight(-1.25f, -1.25f), 1.0f);
  EXPECT_NEAR(importance_weight(-1.0f, -1.5f), std::exp(0.5), 1e-6);
  EXPECT_NEAR(importance_weight(-3.0f, -1.0f), std::exp(-2.0), 1e-7);
  EXPECT_EQ(importance_weight(-1.0f, -100.0f), importance_weight(0.0f, -20.0f));
}

TEST(ImportanceWeight, IsNanWhereALogprobIsNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(importance_weight(nan, -1)));
  EXPECT_TRUE(std::isnan(importance_weight(-1, -std::numeric_limits<float>::infinity())))
      << "not a large ratio that the cap makes ordinary";
}

}  // namespace
}  // namespace orrery::learners
