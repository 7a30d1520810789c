#include "learners/batch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace orrery::learners {
namespace {

TEST(Shards, AreBalancedAndDependOnRowsAlone) {
  const std::vector<int64_t> rows = {10, 50, 20, 30, 40, 5, 5, 40};
  const auto shards = assign_shards(rows, 4);
  std::vector<int> seen(rows.size(), 0);
  int64_t heaviest = 0;
  for (const auto& shard : shards) {
    int64_t load = 0;
    for (const auto tree : shard) {
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
