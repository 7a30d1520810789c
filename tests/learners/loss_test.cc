#include "learners/loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "learners/batch.h"
#include "learners/schedule.h"

namespace orrery::learners {
namespace {

TEST(PolicyLoss, RatioOneIsPlainPolicyGradient) {
  const TokenLossTerms terms = policy_loss({}, -1.5f, -1.5f, 0, 2.0f);
  EXPECT_EQ(terms.pg_loss, -2.0f);
  EXPECT_EQ(terms.dlogp, -2.0f);
  EXPECT_FALSE(terms.clipped);
}

TEST(PolicyLoss, ClipsWhereVerlDoes) {
  PolicyLossParams params;  // 0.2, 0.28, dual clip 3
  // Positive advantage, ratio above 1.28: clipped, no gradient.
  TokenLossTerms up = policy_loss(params, -1.0f, -1.5f, 0, 1.0f);
  EXPECT_TRUE(up.clipped);
  EXPECT_FLOAT_EQ(up.pg_loss, -1.28f);
  EXPECT_EQ(up.dlogp, 0.0f);
  // Negative advantage, ratio below 0.8: clipped.
  TokenLossTerms down = policy_loss(params, -2.0f, -1.5f, 0, -1.0f);
  EXPECT_TRUE(down.clipped);
  EXPECT_FLOAT_EQ(down.pg_loss, 0.8f);
  // Negative advantage, huge ratio: the dual clip bounds it.
  TokenLossTerms dual = policy_loss(params, -1.0f, -4.0f, 0, -1.0f);
  EXPECT_TRUE(dual.clipped_lower);
  EXPECT_FLOAT_EQ(dual.pg_loss, 3.0f);
  EXPECT_EQ(dual.dlogp, 0.0f);
  params.clip_ratio_c = 0;
  EXPECT_NEAR(policy_loss(params, -1.0f, -4.0f, 0, -1.0f).pg_loss, std::exp(3.0), 1e-4);
}

TEST(PolicyLoss, DerivativesMatchFiniteDifferences) {
  for (const KlLossType type : {KlLossType::kK1, KlLossType::kK2, KlLossType::kK3}) {
    PolicyLossParams params;
    params.kl_loss_coef = 0.3f;
    params.kl_loss_type = type;
    for (const float logp : {-3.0f, -1.62f, -1.4f, -0.2f}) {
      for (const float advantage : {-2.0f, 0.0f, 1.5f}) {
        const auto value = [&](double x) {
          const TokenLossTerms t =
              policy_loss(params, static_cast<float>(x), -1.5f, -1.2f, advantage);
          return static_cast<double>(t.pg_loss) + 0.3 * t.kl;
        };
        const double numeric = (value(logp + 1e-3) - value(logp - 1e-3)) / 2e-3;
        EXPECT_NEAR(policy_loss(params, logp, -1.5f, -1.2f, advantage).dlogp, numeric, 2e-3)
            << "logp " << logp << " advantage " << advantage;
      }
    }
  }
}

TEST(PolicyLoss, KlEstimatorsAreThoseOfSchulman) {
  PolicyLossParams params;
  params.kl_loss_coef = 1;
  const float logp = -1.0f, ref = -1.7f, d = ref - logp;
  params.kl_loss_type = KlLossType::kK1;
  EXPECT_FLOAT_EQ(policy_loss(params, logp, logp, ref, 0).kl, -d);
  params.kl_loss_type = KlLossType::kK2;
  EXPECT_FLOAT_EQ(policy_loss(params, logp, logp, ref, 0).kl, d * d / 2);
  params.kl_loss_type = KlLossType::kK3;
  EXPECT_NEAR(policy_loss(params, logp, logp, ref, 0).kl, std::exp(d) - d - 1, 1e-6);
}

TEST(Aggregation, WeightsSumToTheModesTotal) {
  const std::vector<int64_t> lengths = {3, 10, 1, 6};
  double token_mean = 0, seq_mean = 0, seq_sum = 0, norm = 0;
  for (const int64_t n : lengths) {
    const auto count = static_cast<double>(n);
    token_mean += count * aggregation_weight(LossAggMode::kTokenMean, n, 20, 4, 16);
    seq_mean += count * aggregation_weight(LossAggMode::kSeqMeanTokenMean, n, 20, 4, 16);
    seq_sum += count * aggregation_weight(LossAggMode::kSeqMeanTokenSum, n, 20, 4, 16);
    norm += count * aggregation_weight(LossAggMode::kSeqMeanTokenSumNorm, n, 20, 4, 16);
  }
  EXPECT_NEAR(token_mean, 1.0, 1e-6);
  EXPECT_NEAR(seq_mean, 1.0, 1e-6);
  EXPECT_NEAR(seq_sum, 5.0, 1e-6);
  EXPECT_NEAR(norm, 5.0 / 16, 1e-6);
}

TEST(PolicyLoss, LogRatioIsBoundedAsInVerl) {
  EXPECT_FLOAT_EQ(policy_loss({}, -1.0f, -1.5f, 0, 1.0f).log_ratio, 0.5f);
  EXPECT_EQ(policy_loss({}, -1.0f, -50.0f, 0, 1.0f).log_ratio, 20.0f);
  EXPECT_EQ(policy_loss({}, -50.0f, -1.0f, 0, 1.0f).log_ratio, -20.0f);
}

TEST(Schedule, WarmsUpAndDecays) {
  LrSchedule s{1.0, 10, LrScheduler::kCosine, 0.1, 110};
  EXPECT_NEAR(learning_rate(s, 0), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 9), 1.0, 1e-12);
  EXPECT_NEAR(learning_rate(s, 60), 0.55, 1e-12);
  EXPECT_NEAR(learning_rate(s, 110), 0.1, 1e-12);
  EXPECT_NEAR(learning_rate(s, 1000), 0.1, 1e-12);
  s.scheduler = LrScheduler::kLinear;
  EXPECT_NEAR(learning_rate(s, 60), 0.55, 1e-12);
  s.scheduler = LrScheduler::kConstant;
  EXPECT_NEAR(learning_rate(s, 60), 1.0, 1e-12);
}

TEST(Shards, AreBalancedAndDependOnRowsAlone) {
  const std::vector<int64_t> rows = {10, 50, 20, 30, 40, 5, 5, 40};
  const auto shards = assign_shards(rows, 4);
  std::vector<int> seen(rows.size(), 0);
  int64_t heaviest = 0;
  for (const auto& shard : shards) {
    int64_t load = 0;
    for (const size_t tree : shard) {
      ++seen[tree];
      load += rows[tree];
    }
    EXPECT_TRUE(std::is_sorted(shard.begin(), shard.end()));
    heaviest = std::max(heaviest, load);
  }
  EXPECT_EQ(seen, std::vector<int>(rows.size(), 1));
  EXPECT_LE(heaviest, 55);
}

TEST(Trees, AreCutAtTheirLimit) {
  const std::vector<int32_t> prompt(10, 1), response(6, 2);
  std::vector<Leaf> leaves(5);
  for (Leaf& leaf : leaves) leaf.tokens = response;
  const auto trees = make_trees(prompt, leaves, 20);  // 10 + 2 * 5 rows
  ASSERT_EQ(trees.size(), 3u);
  EXPECT_EQ(trees[0].leaves.size(), 2u);
  EXPECT_EQ(trees[0].rows(), 20);
  EXPECT_EQ(trees[2].leaves.size(), 1u);
}

}  // namespace
}  // namespace orrery::learners
