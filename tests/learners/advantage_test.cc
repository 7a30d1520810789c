#include "learners/advantage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/scratch.h"

namespace orrery::learners {
namespace {

using testing::HasSubstr;
using testing_support::error_of;

using Section = proto::AlgorithmSection;

constexpr Section::AdvEstimator kEstimators[] = {Section::GRPO, Section::RLOO,
                                                 Section::REINFORCE_PLUS_PLUS_BASELINE};

Section algorithm(Section::AdvEstimator estimator, bool norm_by_std = true) {
  Section section;
  section.set_adv_estimator(estimator);
  section.set_norm_adv_by_std_in_grpo(norm_by_std);
  return section;
}

const Section kBaseline = algorithm(Section::REINFORCE_PLUS_PLUS_BASELINE);

/// Groups of prompts 10, 11, ...; every sample has as many loss tokens as `tokens`
/// says, or 5.
std::vector<GroupRewards> make_groups(const std::vector<std::vector<float>>& rewards,
                                      const std::vector<std::vector<int64_t>>& tokens = {}) {
  std::vector<GroupRewards> groups;
  for (size_t g = 0; g < rewards.size(); ++g) {
    groups.push_back({10 + g, rewards[g],
                      tokens.empty() ? std::vector<int64_t>(rewards[g].size(), 5) : tokens[g]});
  }
  return groups;
}

void expect_near(const std::vector<std::vector<float>>& actual,
                 const std::vector<std::vector<float>>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t g = 0; g < expected.size(); ++g) {
    ASSERT_EQ(actual[g].size(), expected[g].size());
    for (size_t i = 0; i < expected[g].size(); ++i) {
      EXPECT_NEAR(actual[g][i], expected[g][i], 2e-6 * std::max(1.0f, std::abs(expected[g][i])))
          << "group " << g << " sample " << i;
    }
  }
}

TEST(Advantage, GroupsAreCentredAndScaled) {
  const auto groups = make_groups({{1, 0, 0, 1}, {1, 1, 1}, {0.5f}});
  const auto grpo = compute_advantages(groups, {});
  const double std = std::sqrt(1.0 / 3);
  EXPECT_NEAR(grpo[0][0], 0.5 / (std + 1e-6), 1e-6);
  EXPECT_NEAR(grpo[0][1], -0.5 / (std + 1e-6), 1e-6);
  EXPECT_EQ(grpo[1], (std::vector<float>{0, 0, 0})) << "equal rewards teach nothing";
  EXPECT_EQ(grpo[2], (std::vector<float>{0}));
  const auto unscaled = compute_advantages(groups, algorithm(Section::GRPO, false));
  EXPECT_FLOAT_EQ(unscaled[0][0], 0.5f);
  const auto rloo = compute_advantages(groups, algorithm(Section::RLOO));
  EXPECT_NEAR(rloo[0][0], 1 - 1.0 / 3, 1e-6);
  EXPECT_NEAR(rloo[0][1], 0 - 2.0 / 3, 1e-6);
}

TEST(Advantage, GrpoAndRlooDoNotLookAtLengths) {
  const std::vector<std::vector<float>> rewards = {{1, 0, 0.25f, 1}, {3, -1}};
  for (const Section::AdvEstimator estimator : {Section::GRPO, Section::RLOO}) {
    EXPECT_EQ(
        compute_advantages(make_groups(rewards), algorithm(estimator)),
        compute_advantages(make_groups(rewards, {{1, 20, 0, 3}, {7, 0}}), algorithm(estimator)));
  }
}

// The expected numbers are those of verl's
// compute_reinforce_plus_plus_baseline_outcome_advantage and masked_whiten, its source
// run on float32 arrays (numpy's, in place of torch's), each reward on the last token
// of its response.
TEST(ReinforcePlusPlusBaseline, IsVerlsWithLengthsThatFollowTheReward) {
  const auto groups =
      make_groups({{1, 0, 0, 1}, {0.25f, 1, 1, 0.5f}}, {{2, 9, 12, 3}, {20, 1, 2, 7}});
  expect_near(compute_advantages(groups, kBaseline),
              {{2.51851583f, -0.606955409f, -0.606955409f, 2.51851583f},
               {-0.411613435f, 1.93248999f, 1.93248999f, 0.369754404f}});
}

TEST(ReinforcePlusPlusBaseline, IsVerlsForOneSampleEqualRewardsAndEmptyResponses) {
  expect_near(compute_advantages(
                  make_groups({{1, 0, 0}, {1, 1}, {0.75f}}, {{4, 0, 6}, {3, 5}, {2}}), kBaseline),
              {{1.33272481f, 0, -1.05424511f}, {-0.258588403f, -0.258588403f}, {1.5316391f}});
  expect_near(compute_advantages(make_groups({{-1, 3}, {2, -2}}, {{1, 30}, {8, 0}}), kBaseline),
              {{-6.08487034f, 0.160128161f}, {0.160128161f, 0}});
  expect_near(compute_advantages(make_groups({{1, 1}, {0, 0}}, {{3, 5}, {2, 2}}), kBaseline),
              {{0, 0}, {0, 0}});
}

TEST(ReinforcePlusPlusBaseline, LossTokensHaveMeanZeroAndUnitVariance) {
  const std::vector<std::vector<int64_t>> tokens = {{3, 1, 17}, {40, 2, 9}};
  const auto advantages =
      compute_advantages(make_groups({{0, 1, 0.5f}, {5, 0, 1}}, tokens), kBaseline);
  double count = 0, sum = 0, squares = 0;
  for (size_t g = 0; g < tokens.size(); ++g) {
    for (size_t i = 0; i < tokens[g].size(); ++i) {
      const double n = static_cast<double>(tokens[g][i]), a = advantages[g][i];
      count += n;
      sum += n * a;
      squares += n * a * a;
    }
  }
  EXPECT_NEAR(sum, 0, 1e-5);
  EXPECT_NEAR(squares / (count - 1), 1, 1e-5);
}

TEST(ReinforcePlusPlusBaseline, FewerThanTwoLossTokensTeachNothing) {
  for (const int64_t tokens : {0, 1}) {
    EXPECT_EQ(compute_advantages(make_groups({{1, 0}}, {{tokens, 0}}), kBaseline),
              (std::vector<std::vector<float>>{{0, 0}}));
  }
}

TEST(Advantage, ARewardThatIsNotFiniteIsRefusedWhereverItStands) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> rewards = {{1, 0, 0, 1}, {0.5f, 0.5f, 0.5f}, {1, 0}, {7}};
  for (const Section::AdvEstimator estimator : kEstimators) {
    for (const float bad : {nan, -nan, inf, -inf}) {
      for (size_t g = 0; g < rewards.size(); ++g) {
        for (size_t i = 0; i < rewards[g].size(); ++i) {
          auto spoilt = rewards;
          spoilt[g][i] = bad;
          const std::string text =
              error_of([&] { compute_advantages(make_groups(spoilt), algorithm(estimator)); });
          EXPECT_THAT(
              text,
              HasSubstr(
                  "1 of the batch's 10 rewards are not finite numbers, first that of prompt " +
                  std::to_string(10 + g) + " sample " + std::to_string(i)));
        }
      }
    }
    auto all = rewards;
    for (auto& group : all) group.assign(group.size(), nan);
    EXPECT_THAT(error_of([&] { compute_advantages(make_groups(all), algorithm(estimator)); }),
                HasSubstr("10 of the batch's 10 rewards are not finite numbers, "
                          "first that of prompt 10 sample 0"));
  }
}

TEST(Advantage, HugeRewardsNeverMakeAnInfiniteAdvantage) {
  const float huge = std::numeric_limits<float>::max();
  for (const std::vector<float>& group :
       {std::vector<float>{huge, -huge}, {huge, 0, huge}, {-huge, huge, 0, 1}}) {
    for (const Section::AdvEstimator estimator : kEstimators) {
      for (const bool norm : {true, false}) {
        try {
          for (const auto& advantages :
               compute_advantages(make_groups({group, {1, 0}}), algorithm(estimator, norm)))
            for (const float a : advantages) EXPECT_TRUE(std::isfinite(a));
        } catch (const Error& error) {
          EXPECT_THAT(
              error.what(),
              HasSubstr("advantages are not finite numbers, first that of prompt 10 sample"));
          EXPECT_THAT(error.what(), HasSubstr("too large for float32"));
        }
      }
    }
  }
  EXPECT_THAT(error_of([&] {
                compute_advantages(make_groups({{1, 0}, {huge, -huge}}), algorithm(Section::RLOO));
              }),
              HasSubstr("2 of the batch's 4 advantages are not finite numbers, "
                        "first that of prompt 11 sample 0"));
}

}  // namespace
}  // namespace orrery::learners
