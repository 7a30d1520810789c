#include "storage/checkpoint_report.h"

#include <cmath>

#include "tests/storage/checkpoint_fixture.h"

namespace orrery::storage {
namespace {

TEST_F(CheckpointTest, ReportsStatisticsAndDifferences) {
  Buffers a = buffers(1), b = a;
  const models::Parameter& p = table_.parameters()[2];
  const auto at = [&](std::vector<float>& values, int64_t i) -> float& {
    return table_.values(Span<float>(values), p)[i];
  };
  at(a.weights, 0) = 3.0f;
  at(b.weights, 0) = 4.0f;
  at(a.weights, 1) = 0.0f;
  at(b.weights, 1) = -0.0f;
  at(b.v, 5) = NAN;
  at(a.weights, 2) = at(b.weights, 2) = NAN;
  const Checkpoint x(save(1, a, {50})), y(save(2, b));
  const CheckpointDiff diff = diff_checkpoints(x, y);
  EXPECT_FALSE(diff.equal_tensors());
  EXPECT_EQ(diff.tensors.size(), table_.parameters().size());
  for (const TensorDiff& t : diff.tensors) EXPECT_EQ(t.equal(), t.name != p.name);
  const TensorDiff& t = diff.tensors[2];
  EXPECT_EQ(t.weights.differing, 2);
  EXPECT_EQ(t.weights.max_abs, 1.0);
  EXPECT_EQ(t.weights.max_rel, 0.25);
  EXPECT_EQ(t.adam_m.differing, 0);
  EXPECT_EQ(t.adam_v.differing, 1);
  EXPECT_TRUE(std::isinf(t.adam_v.max_abs));
  EXPECT_TRUE(diff_checkpoints(x, x).equal_tensors());

  const TensorStats stats = weight_stats(x)[2];
  EXPECT_EQ(stats.name, p.name);
  EXPECT_EQ(stats.nan_count, 1);
  double squares = 0;
  for (int64_t i = 0; i < p.size; ++i) {
    const double v = at(a.weights, i);
    if (i != 2) squares += v * v;
  }
  EXPECT_DOUBLE_EQ(stats.norm, std::sqrt(squares));
  EXPECT_GE(stats.max, 3.0);
}

}  // namespace
}  // namespace orrery::storage
