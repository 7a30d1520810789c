#include "learners/schedule.h"

#include <gtest/gtest.h>

namespace orrery::learners {
namespace {

TEST(Schedule, WarmsUpAndDecays) {
  LrSchedule s{1.0, 10, proto::OptimSection::COSINE, 0.1, 110};
  EXPECT_NEAR(learning_rate(s, 0), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 9), 1.0, 1e-12);
  EXPECT_NEAR(learning_rate(s, 60), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(s, 110), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 1000), 0.1, 1e-12);
  s.scheduler = proto::OptimSection::LINEAR;
  EXPECT_NEAR(learning_rate(s, 60), 0.55, 1e-12);
  s.scheduler = proto::OptimSection::CONSTANT;
  EXPECT_NEAR(learning_rate(s, 60), 1.0, 1e-12);
}

}  // namespace
}  // namespace orrery::learners
