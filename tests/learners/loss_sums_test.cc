#include "learners/loss_sums.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace orrery::learners {
namespace {

TEST(LossSums, FirstMismatchDoesNotDependOnTheOrderOfShards) {
  LossSums a, b;
  a.mismatches.add({7, 0, 3, 1, -1, -2});
  b.mismatches.add({2, 5, 9, 1, -1, -2});
  b.mismatches.add({2, 5, 8, 1, -1, -2});
  LossSums ab = a, ba = b;
  ab.add(b);
  ba.add(a);
  ab.add(LossSums{});
  EXPECT_EQ(ab.mismatches.count, 3);
  EXPECT_EQ(ba.mismatches.count, 3);
  EXPECT_EQ(ab.mismatches.first.place(), std::tuple(uint64_t{2}, 5u, 8));
  EXPECT_EQ(ba.mismatches.first.place(), ab.mismatches.first.place());
}

TEST(LogprobDifference, IsNanWhereverTheNanStands) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (size_t at = 0; at < 3; ++at) {
    LogprobDifference difference, other;
    for (size_t i = 0; i < 3; ++i) difference.compare(i == at ? nan : -1.0f, -2.0f);
    EXPECT_TRUE(std::isnan(difference.probs_diff_max) && std::isnan(difference.logprob_diff_max))
        << at;
    EXPECT_TRUE(std::isnan(difference.probs_diff_sum));
    other.compare(-1.0f, -2.0f);
    other.merge(difference);
    EXPECT_TRUE(std::isnan(other.probs_diff_max));
  }
}

constexpr Term kTerms[] = {{"of the loss", Mean::kAsLoss}, {"of tokens", Mean::kOverTokens}};

TEST(LossSums, TermsAreSumsOrMeansOverTokens) {
  LossSums sums(kTerms);
  sums.tokens = 4;
  sums.terms[0].sum = sums.terms[1].sum = 6;
  EXPECT_EQ(sums.value(sums.terms[0]), 6);
  EXPECT_EQ(sums.value(sums.terms[1]), 1.5);
  LossSums more = sums;
  more.add(sums);
  EXPECT_EQ(more.value(more.terms[0]), 12);
  EXPECT_EQ(more.value(more.terms[1]), 1.5);
  EXPECT_EQ(LossSums(kTerms).value({kTerms[1], 3}), 3) << "of no token: not a division by 0";
}

TEST(LossSums, BytesHoldEveryValueAndNothingElse) {
  LossSums sums(kTerms);
  sums.tokens = 10;
  sums.loss = -0.0;
  sums.entropy = 1.0 / 3;
  sums.terms[0].sum = std::numeric_limits<double>::denorm_min();
  sums.terms[1].sum = 7;
  sums.compare(-1, -2);
  sums.mismatches.add({1, 2, 3, 4, -5, -6});
  sums.not_finite.add({uint64_t{1} << 63, 0xFFFFFFFF, -1, 8, 9, 10});
  std::string bytes;
  sums.append_to(bytes);
  sums.append_to(bytes);
  EXPECT_EQ(bytes.size(), 2u * (9 * sizeof(double) + 2 * (8 + 8 + 5 * 4)));
  std::string_view rest = bytes;
  for (int i = 0; i < 2; ++i) {
    LossSums back(kTerms);
    back.take_from(rest);
    std::string again;
    back.append_to(again);
    EXPECT_EQ(again, bytes.substr(0, bytes.size() / 2));
    EXPECT_EQ(back.not_finite.first.prompt_index, uint64_t{1} << 63);
    EXPECT_EQ(back.mismatches.first.recomputed, -6);
  }
  EXPECT_TRUE(rest.empty());
  rest = std::string_view(bytes).substr(1, bytes.size() / 2 - 1);
  LossSums back(kTerms);
  EXPECT_THROW(back.take_from(rest), Error);
}

}  // namespace
}  // namespace orrery::learners
