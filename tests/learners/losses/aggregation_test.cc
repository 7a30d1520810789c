#include "learners/losses/aggregation.h"

#include <gtest/gtest.h>

#include <vector>

namespace orrery::learners {
namespace {

TEST(Aggregation, WeightsSumToTheModesTotal) {
  const std::vector<int64_t> lengths = {3, 10, 1, 6};
  double token_mean = 0, seq_mean = 0, seq_sum = 0, norm = 0;
  for (const int64_t n : lengths) {
    const auto count = static_cast<double>(n);
    token_mean += count * aggregation_weight(proto::ActorSection::TOKEN_MEAN, n, 20, 4, 16);
    seq_mean += count * aggregation_weight(proto::ActorSection::SEQ_MEAN_TOKEN_MEAN, n, 20, 4, 16);
    seq_sum += count * aggregation_weight(proto::ActorSection::SEQ_MEAN_TOKEN_SUM, n, 20, 4, 16);
    norm += count * aggregation_weight(proto::ActorSection::SEQ_MEAN_TOKEN_SUM_NORM, n, 20, 4, 16);
  }
  EXPECT_NEAR(token_mean, 1.0, 1e-6);
  EXPECT_NEAR(seq_mean, 1.0, 1e-6);
  EXPECT_NEAR(seq_sum, 5.0, 1e-6);
  EXPECT_NEAR(norm, 5.0 / 16, 1e-6);
}

}  // namespace
}  // namespace orrery::learners
