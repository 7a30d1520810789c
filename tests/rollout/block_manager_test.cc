#include "rollout/block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "core/error.h"
#include "core/rng.h"

namespace orrery::rollout {
namespace {

TEST(BlockManager, CountsBlocksForTokens) {
  EXPECT_EQ(BlockManager::blocks_for(0), 0);
  EXPECT_EQ(BlockManager::blocks_for(1), 1);
  EXPECT_EQ(BlockManager::blocks_for(models::KvCache::block_tokens()), 1);
  EXPECT_EQ(BlockManager::blocks_for(models::KvCache::block_tokens() + 1), 2);
}

TEST(BlockManager, AppendsOnlyWhenATableIsFull) {
  BlockManager manager(2);
  BlockTable table;
  manager.may_append(table, 1);
  EXPECT_EQ(table.size(), 1);
  manager.may_append(table, models::KvCache::block_tokens());
  EXPECT_EQ(table.size(), 1);
  EXPECT_TRUE(manager.can_append(table, 2 * models::KvCache::block_tokens()));
  EXPECT_FALSE(manager.can_append(table, 2 * models::KvCache::block_tokens() + 1));
  EXPECT_THROW(manager.may_append(table, 2 * models::KvCache::block_tokens() + 1), Error);
}

TEST(BlockManager, ForkSharesFullBlocksAndCopiesThePartlyFilledOne) {
  BlockManager manager(8);
  BlockTable parent, child, exact;
  manager.allocate(parent, 3);
  const auto copy = manager.fork(child, parent, 2 * models::KvCache::block_tokens() + 5);
  ASSERT_TRUE(copy.has_value());
  EXPECT_EQ(copy->from, parent[2]);
  EXPECT_EQ(copy->to, child[2]);
  EXPECT_EQ(copy->count, 5);
  EXPECT_EQ(child[0], parent[0]);
  EXPECT_EQ(child[1], parent[1]);
  EXPECT_NE(child[2], parent[2]);
  EXPECT_EQ(manager.reference_count(parent[0]), 2);
  EXPECT_EQ(manager.reference_count(child[2]), 1);
  EXPECT_FALSE(manager.fork(exact, parent, 2 * models::KvCache::block_tokens()).has_value());
  EXPECT_EQ(exact.size(), 2);
  manager.release(parent);
  EXPECT_EQ(manager.free_blocks(), 5);  // only the parent's own third block came back
  manager.release(child);
  manager.release(exact);
  EXPECT_EQ(manager.free_blocks(), 8);
}

TEST(BlockManager, DetectsDoubleFreeAndUseAfterFree) {
  BlockManager manager(4);
  BlockTable table;
  manager.allocate(table, 2);
  BlockTable stale = table;
  manager.release(table);
  EXPECT_TRUE(table.empty());
  BlockTable again = stale;
  EXPECT_THROW(manager.release(again), Error);
  BlockTable child;
  EXPECT_THROW(manager.fork(child, stale, 2 * models::KvCache::block_tokens()), Error);
  BlockTable wild = {7};
  EXPECT_THROW(manager.release(wild), Error);
  EXPECT_THROW(BlockManager(0), Error);
}

// Random allocations, forks and releases against a plain map of reference counts.
TEST(BlockManager, KeepsItsInvariantsUnderRandomUse) {
  constexpr int64_t kBlocks = 40;
  Philox random(3, RngPurpose::kTest);
  BlockManager manager(kBlocks);
  std::vector<BlockTable> tables;
  std::vector<int64_t> lengths;
  for (int round = 0; round < 20000; ++round) {
    const uint32_t action = random.below(4);
    if (action == 0) {
      const auto tokens =
          1 + static_cast<int64_t>(random.below(5 * models::KvCache::block_tokens()));
      BlockTable table;
      if (manager.can_append(table, tokens)) {
        manager.may_append(table, tokens);
        tables.push_back(table);
        lengths.push_back(tokens);
      } else {
        EXPECT_THROW(manager.may_append(table, tokens), Error);
      }
    } else if (!tables.empty()) {
      const size_t i = random.below(static_cast<uint32_t>(tables.size()));
      if (action == 1 && manager.can_allocate(1)) {
        BlockTable child;
        const auto tokens =
            static_cast<int64_t>(random.below(static_cast<uint32_t>(lengths[i]) + 1));
        const auto copy = manager.fork(child, tables[i], tokens);
        ASSERT_EQ(copy.has_value(), tokens % models::KvCache::block_tokens() != 0);
        ASSERT_EQ(child.size(), BlockManager::blocks_for(tokens));
        tables.push_back(child);
        lengths.push_back(tokens);
      } else if (action == 2 && manager.can_append(tables[i], lengths[i] + 1)) {
        manager.may_append(tables[i], ++lengths[i]);
      } else if (action == 3) {
        manager.release(tables[i]);
        tables.erase(tables.begin() + static_cast<std::ptrdiff_t>(i));
        lengths.erase(lengths.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
    std::map<int32_t, int32_t> references;
    for (const auto& table : tables) {
      for (const int32_t block : table) ++references[block];
      ASSERT_EQ(std::ssize(std::set<int32_t>(table.begin(), table.end())), table.size())
          << "a block twice in a table";
    }
    ASSERT_EQ(manager.blocks_in_use(), static_cast<int64_t>(references.size()));
    for (int32_t block = 0; block < kBlocks; ++block) {
      ASSERT_EQ(manager.reference_count(block), references.contains(block) ? references[block] : 0);
    }
  }
  for (auto& table : tables) manager.release(table);
  EXPECT_EQ(manager.free_blocks(), kBlocks);
}

}  // namespace
}  // namespace orrery::rollout
