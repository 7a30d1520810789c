#include "learners/advantage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/scratch.h"

namespace orrery::learners {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::error_of;

using Section = proto::AlgorithmSection;

constexpr Section::AdvEstimator kEstimators[] = {Section::GRPO,
                                                 Section::RLOO,
                                                 Section::REINFORCE_PLUS_PLUS_BASELINE,
                                                 Section::REINFORCE_PLUS_PLUS,
                                                 Section::OPO,
                                                 Section::GPG,
                                                 Section::GRPO_PASSK,
                                                 Section::PASSK,
                                                 Section::GDPO,
                                                 Section::MAXRL,
                                                 Section::REMAX};
static_assert(std::size(kEstimators) == Section::AdvEstimator_ARRAYSIZE);

Section algorithm(Section::AdvEstimator estimator, bool norm_by_std = true) {
  Section section;
  section.set_adv_estimator(estimator);
  section.set_norm_adv_by_std_in_grpo(norm_by_std);
  section.set_passk_k(2);
  section.add_gdpo_reward_keys("whole");
  return section;
}

const Section kBaseline = algorithm(Section::REINFORCE_PLUS_PLUS_BASELINE);

/// Groups of prompts 10, 11, ...; every sample has as many loss tokens as `tokens`
/// says, or 5, and the whole reward as its one part. Greedy responses have the reward
/// 0.
std::vector<GroupRewards> make_groups(const std::vector<std::vector<float>>& rewards,
                                      const std::vector<std::vector<int64_t>>& tokens = {}) {
  std::vector<GroupRewards> groups;
  for (size_t g = 0; g < rewards.size(); ++g) {
    GroupRewards& group = groups.emplace_back();
    group.prompt_index = 10 + g;
    group.rewards = rewards[g];
    group.loss_tokens = tokens.empty() ? std::vector<int64_t>(rewards[g].size(), 5) : tokens[g];
    for (const float reward : rewards[g]) group.parts.push_back({{"whole", reward}});
    group.greedy_reward = 0;
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

TEST(Advantage, ThoseOfAGroupAloneDoNotLookAtLengths) {
  const std::vector<std::vector<float>> rewards = {{1, 0, 0.25f, 1}, {3, 1}};
  for (const auto estimator : {Section::GRPO, Section::RLOO, Section::GPG, Section::GRPO_PASSK,
                               Section::PASSK, Section::MAXRL, Section::REMAX}) {
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

TEST(Advantage, AGroupOfEqualRewardsTeachesNothingWhereGroupsStandAlone) {
  for (const Section::AdvEstimator estimator : kEstimators) {
    if (estimator == Section::REINFORCE_PLUS_PLUS_BASELINE || !compares_samples(estimator))
      continue;
    const auto advantages =
        compute_advantages(make_groups({{0.3f, 0.3f, 0.3f}, {0.7f}}), algorithm(estimator));
    EXPECT_EQ(advantages, (std::vector<std::vector<float>>{{0, 0, 0}, {0}}));
  }
}

TEST(ReinforcePlusPlus, IsTheRewardWhitenedOverTheBatch) {
  // Three tokens of 1 and one of 0: mean 3/4, variance (3/16 + 9/16) / 3 = 1/4.
  expect_near(compute_advantages(make_groups({{1}, {0, 5}}, {{3}, {1, 0}}),
                                 algorithm(Section::REINFORCE_PLUS_PLUS)),
              {{0.5f}, {-1.5f, 0}});
  EXPECT_EQ(compute_advantages(make_groups({{0.1f, 0.1f}, {0.1f}}, {{7, 1}, {3}}),
                               algorithm(Section::REINFORCE_PLUS_PLUS)),
            (std::vector<std::vector<float>>{{0, 0}, {0}}))
      << "nothing differs, to the bit";
}

TEST(Opo, TheBaselineIsWeighedByLength) {
  // (1 * 3 + 0 * 1 + 2 * 4) / 8 = 11/8
  expect_near(compute_advantages(make_groups({{1, 0, 2}, {1, 0}}, {{3, 1, 4}, {0, 0}}),
                                 algorithm(Section::OPO)),
              {{-0.375f, -1.375f, 0.625f}, {0, 0}});
}

TEST(Gpg, IsScaledByTheShareOfRewardsThatAreNotZero) {
  // Two of six are: alpha is 3.
  expect_near(compute_advantages(make_groups({{1, 0}, {1, 0, 0, 0}}), algorithm(Section::GPG)),
              {{1.5f, -1.5f}, {2.25f, -0.75f, -0.75f, -0.75f}});
  expect_near(compute_advantages(make_groups({{0, 0}}), algorithm(Section::GPG)), {{0, 0}});
}

TEST(GrpoPassk, OnlyTheBestLearnsFromItsLead) {
  const auto groups = make_groups({{0.5f, 2, 0, 1.5f}, {1, 1, 0}});
  expect_near(compute_advantages(groups, algorithm(Section::GRPO_PASSK, false)),
              {{0, 0.5f, 0, 0}, {0, 0, 0}});
  // The mean is 1, the variance (1/4 + 1 + 1 + 1/4) / 3.
  const double scaled = 0.5 / (std::sqrt(2.5 / 3) + 1e-6);
  expect_near(compute_advantages(groups, algorithm(Section::GRPO_PASSK)),
              {{0, static_cast<float>(scaled), 0, 0}, {0, 0, 0}});
}

/// The definition: every set of k samples, its best reward, and their means.
std::vector<float> passk_by_sets(const std::vector<float>& rewards, int k) {
  const int n = static_cast<int>(rewards.size());
  double all = 0, squares = 0, sets = 0;
  std::vector<double> own(rewards.size()), own_sets(rewards.size());
  for (uint32_t set = 0; set < 1u << n; ++set) {
    if (__builtin_popcount(set) != k) continue;
    double best = -1e30;
    for (int i = 0; i < n; ++i)
      if ((set >> i & 1) != 0) best = std::max<double>(best, rewards[i]);
    ++sets;
    all += best;
    squares += best * best;
    for (int i = 0; i < n; ++i) {
      if ((set >> i & 1) == 0) continue;
      own[i] += best;
      ++own_sets[i];
    }
  }
  const double center = all / sets, spread = std::sqrt(squares / sets - center * center);
  std::vector<float> result;
  for (int i = 0; i < n; ++i)
    result.push_back(static_cast<float>((own[i] / own_sets[i] - center) / (spread + 1e-6)));
  return result;
}

TEST(Passk, IsTheMeanOverAllSetsOfKSamples) {
  const std::vector<float> rewards = {0.5f, -1, 2, 0.5f, 0, 3, 2.5f};
  for (int k = 1; k < 7; ++k) {
    Section section = algorithm(Section::PASSK);
    section.set_passk_k(k);
    const auto advantages = compute_advantages(make_groups({rewards}), section);
    expect_near(advantages, {passk_by_sets(rewards, k)});
    EXPECT_EQ(advantages[0][0], advantages[0][3]) << "equal rewards, to the bit";
  }
}

TEST(Passk, AGroupWhoseSetsAreAllAsGoodTeachesNothing) {
  Section section = algorithm(Section::PASSK);
  section.set_passk_k(3);
  // Any three hold a right one; three samples are one set.
  EXPECT_EQ(compute_advantages(make_groups({{1, 0, 1, 0}, {1, 0, 0}, {0, 1}}), section),
            (std::vector<std::vector<float>>{{0, 0, 0, 0}, {0, 0, 0}, {0, 0}}));
}

TEST(Passk, LargeGroupsHaveFiniteCounts) {
  // C(4096, 2048) is no double.
  Section section = algorithm(Section::PASSK);
  section.set_passk_k(2048);
  std::vector<float> rewards(4096, 0.0f);
  rewards[17] = 1;
  const auto advantages = compute_advantages(make_groups({rewards}), section);
  EXPECT_NEAR(advantages[0][17], 1, 1e-5);  // half of the sets hold it
  EXPECT_NEAR(advantages[0][0], -1.0 / 4095, 1e-8);
}

TEST(Maxrl, CountsRareSuccessesMore) {
  expect_near(
      compute_advantages(make_groups({{1, 0, 0, 0}, {1, 1, 1, 0}}), algorithm(Section::MAXRL)),
      {{3, -1, -1, -1}, {1.0f / 3, 1.0f / 3, 1.0f / 3, -1}});
  EXPECT_THAT(
      error_of([&] {
        compute_advantages(make_groups({{1, 0}, {0.5f, -0.25f}}), algorithm(Section::MAXRL));
      }),
      AllOf(HasSubstr("the reward of prompt 11 sample 1 is -0.25"),
            HasSubstr("maxrl divides by a group's mean reward")));
}

TEST(Remax, TheGreedyResponseIsTheBaseline) {
  auto groups = make_groups({{1, 0, 0.5f}, {2}});
  groups[0].greedy_reward = 0.25f;
  groups[1].greedy_reward = 3;
  EXPECT_EQ(compute_advantages(groups, algorithm(Section::REMAX)),
            (std::vector<std::vector<float>>{{0.75f, -0.25f, 0.25f}, {-1}}));
}

TEST(Gdpo, PartsAreComparedApartAndWeighed) {
  // Apart both parts are +-1/sqrt(2) in each group; "big" is a thousand times as large.
  auto groups = make_groups({{0, 0}, {0, 0}}, {{1, 1}, {1, 1}});
  groups[0].parts = {{{"big", 1000}, {"small", 0}}, {{"big", 0}, {"small", 1}}};
  groups[1].parts = {{{"big", 1000}, {"small", 1}}, {{"big", 0}, {"small", 0}}};
  Section section;
  section.set_adv_estimator(Section::GDPO);
  section.add_gdpo_reward_keys("big");
  section.add_gdpo_reward_keys("small");
  // Sums 0, 0 and +-sqrt(2): the variance is 4/3.
  const float one = std::sqrt(1.5f);
  expect_near(compute_advantages(groups, section), {{0, 0}, {one, -one}});
  section.add_gdpo_reward_weights(1);
  section.add_gdpo_reward_weights(-3);
  // (1 + 3) and (1 - 3) over sqrt(2): 8, 8, 2, 2 are the squares, 20/3 the variance.
  const float more = std::sqrt(8 * 3 / 20.0f), less = std::sqrt(2 * 3 / 20.0f);
  expect_near(compute_advantages(groups, section), {{more, -more}, {-less, less}});
}

TEST(Gdpo, APartThatASampleHasNotIsAnError) {
  auto groups = make_groups({{0, 1}, {1, 0}});
  groups[1].parts[1] = {{"correct", 1}, {"format", 0}};
  Section section = algorithm(Section::GDPO);
  EXPECT_EQ(error_of([&] { compute_advantages(groups, section); }),
            "algorithm.gdpo_reward_keys has 'whole', and the reward of prompt 11 sample 1 has no "
            "such part: it has correct, format; name parts that every sample has");
  groups[0].parts[0].clear();
  EXPECT_THAT(error_of([&] { compute_advantages(groups, section); }),
              HasSubstr("prompt 10 sample 0 has no such part: it has none;"));
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
      auto rewards = group;
      if (estimator == Section::MAXRL) {
        for (float& reward : rewards) reward = std::abs(reward);
      }
      for (const bool norm : {true, false}) {
        try {
          for (const auto& advantages :
               compute_advantages(make_groups({rewards, {1, 0}}), algorithm(estimator, norm)))
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
