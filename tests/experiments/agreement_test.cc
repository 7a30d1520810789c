// What is said when ranks disagree. That they find out: tests/mpi/agreement_test.cc.
#include "experiments/agreement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace orrery::experiments {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

RankFacts rank(const std::string& host, std::vector<Fact> facts) {
  return {host, std::move(facts)};
}

TEST(Disagreement, IsNoneWhenAllIsAlike) {
  EXPECT_EQ(describe_disagreement(std::vector<RankFacts>{rank("a", {{"seed", "1", ""}})}), "");
  EXPECT_EQ(describe_disagreement(std::vector<RankFacts>{rank("a", {{"seed", "1", ""}}),
                                                         rank("b", {{"seed", "1", "one"}})}),
            "");
}

TEST(Disagreement, NamesRankHostKeyAndBothValues) {
  const std::vector<RankFacts> ranks = {rank("a", {{"n", "8", ""}, {"seed", "1", ""}}),
                                        rank("b", {{"n", "8", ""}, {"seed", "2", ""}})};
  EXPECT_EQ(
      describe_disagreement(ranks),
      "the ranks would mix two experiments: rank 1 on host b, unlike rank 0 on host a, "
      "has seed 2 (not 1); start every rank with the same program, config, overrides and files");
}

TEST(Disagreement, ShowsWhatAPersonReadsAndWhatOnlyOneHas) {
  const std::vector<RankFacts> ranks = {
      rank("a", {{"f[0]", "11", "/x with 11"}, {"f[1]", "3", "/y"}}),
      rank("b", {{"f[0]", "22", "/x with 22"}, {"g", "1", ""}})};
  EXPECT_THAT(
      describe_disagreement(ranks),
      HasSubstr("has f[0] /x with 22 (not /x with 11), f[1] none (not /y), g 1 (not none);"));
}

TEST(Disagreement, NamesTheRanksThatDifferFromMost) {
  const Fact one{"seed", "1", ""}, two{"seed", "2", ""};
  EXPECT_THAT(describe_disagreement(
                  std::vector<RankFacts>{rank("a", {one}), rank("b", {two}), rank("c", {two})}),
              AllOf(HasSubstr("rank 0 on host a, unlike rank 1 on host b, has seed 1 (not 2)"),
                    Not(HasSubstr("host c"))));
  std::vector<RankFacts> many(20, rank("a", {one}));
  for (size_t r = 13; r < 20; ++r) many[r] = rank("b", {{"seed", std::to_string(r), ""}});
  EXPECT_THAT(
      describe_disagreement(many),
      AllOf(HasSubstr("rank 13 on host b"), HasSubstr("rank 14 on host b differs too, in seed"),
            HasSubstr("so do 3 more ranks")));
}

TEST(Disagreement, StaysShort) {
  std::vector<RankFacts> ranks = {rank("a", {}), rank("b", {})};
  for (int i = 0; i < 100; ++i) {
    for (size_t r = 0; r < 2; ++r)
      ranks[r].facts.push_back(
          {"key" + std::to_string(i), std::string(1000, 'x') + std::to_string(r), ""});
  }
  const std::string text = describe_disagreement(ranks);
  EXPECT_LT(text.size(), 3000u);
  EXPECT_THAT(text, HasSubstr("and 94 more that differ"));
}

}  // namespace
}  // namespace orrery::experiments
