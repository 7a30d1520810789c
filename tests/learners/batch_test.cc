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

/// Trees of `rows` rows each, of which only the last `loss_rows` have a loss.
struct Trees {
  explicit Trees(const std::vector<int64_t>& rows, int64_t loss_rows = 3)
      : tokens(1000, 1), mask(1000, 1) {
    for (const int64_t count : rows) {
      Leaf leaf;
      leaf.tokens = std::span(tokens).first(static_cast<size_t>(loss_rows));
      leaf.loss_mask = std::span(mask).first(static_cast<size_t>(loss_rows));
      const int64_t prompt = count - Tree::leaf_rows(loss_rows);
      trees.push_back({std::span(tokens).first(static_cast<size_t>(prompt)), {leaf}});
    }
    for (Tree& tree : trees) order.push_back(&tree);
  }
  std::vector<int32_t> tokens;
  std::vector<uint8_t> mask;
  std::vector<Tree> trees;
  std::vector<Tree*> order;
};

using Ends = std::vector<int64_t>;

TEST(Runs, EndWithTheTreeThatBringsThemToTheLeastRows) {
  const Trees trees({100, 155, 1 + 2, 255, 1 + 2, 300, 256, 10, 20});
  const auto batches = pack(trees.order, 1 << 20, 256);
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(batches[0].run_ends, (Ends{258, 516, 816, 1072, 1102}));
  EXPECT_EQ(batches[0].loss_run_ends, (Ends{9, 15, 18, 21, 27}));
  EXPECT_EQ(std::ssize(batches[0].tokens), 1102);
  EXPECT_EQ(std::ssize(batches[0].loss_rows), 27);
}

TEST(Runs, AreNeverCutByTheTokenBudget) {
  const Trees trees({100, 155, 3, 255, 3, 300, 256, 10, 20});
  const std::vector<Ends> one_each = {{258}, {258}, {300}, {256}, {30}};
  const std::vector<std::pair<int64_t, std::vector<Ends>>> expected = {
      {1, one_each},
      {285, one_each},
      {286, {{258}, {258}, {300}, {256, 286}}},
      {516, {{258, 516}, {300}, {256, 286}}},
      {558, {{258, 516}, {300, 556}, {30}}},
  };
  for (const auto& [budget, ends] : expected) {
    std::vector<Ends> found, loss;
    for (const MicroBatch& batch : pack(trees.order, budget, 256)) {
      found.push_back(batch.run_ends);
      EXPECT_EQ(std::ssize(batch.tokens), batch.run_ends.back());
      EXPECT_EQ(std::ssize(batch.loss_rows), batch.loss_run_ends.back());
    }
    EXPECT_EQ(found, ends) << "budget " << budget;
  }
}

TEST(Runs, AreTreesInF32AndMayHaveNoLossRows) {
  EXPECT_EQ(min_run_rows(DType::kF32), 1);
  EXPECT_EQ(min_run_rows(DType::kBF16), 256);
  Trees trees({40, 60, 20});
  trees.trees[1].leaves[0].loss_mask = std::span(trees.mask).last(0);
  const std::vector<uint8_t> masked(3, 0);
  trees.trees[1].leaves[0].loss_mask = masked;
  const auto batches = pack(trees.order, 100, min_run_rows(DType::kF32));
  ASSERT_EQ(batches.size(), 2u);
  EXPECT_EQ(batches[0].run_ends, (Ends{40, 100}));
  EXPECT_EQ(batches[0].loss_run_ends, (Ends{3, 3}));
  EXPECT_EQ(batches[1].run_ends, Ends{20});
  EXPECT_TRUE(pack({}, 100, 256).empty());
}

}  // namespace
}  // namespace orrery::learners
