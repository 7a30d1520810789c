#include "rollout/block_manager.h"

#include "core/error.h"

namespace orrery::rollout {

BlockManager::BlockManager(int64_t blocks) {
  ORRERY_CHECK(blocks >= 1 && blocks <= INT32_MAX, "{} KV blocks", blocks);
  reference_counts_.assign(blocks, 0);
  free_.reserve(blocks);
  for (int64_t block = blocks - 1; block >= 0; --block) free_.push_back(block);
}

int32_t BlockManager::reference_count(int32_t block) const {
  ORRERY_CHECK(block >= 0 && block < blocks(), "block {} of {}", block, blocks());
  return reference_counts_[block];
}

void BlockManager::allocate(BlockTable& table, int64_t count) {
  ORRERY_CHECK(can_allocate(count), "{} blocks wanted, {} free", count, free_blocks());
  for (int64_t i = 0; i < count; ++i) {
    const int32_t block = free_.back();
    free_.pop_back();
    int32_t& references = reference_counts_[block];
    ORRERY_CHECK(references == 0, "free block {} has {} references", block, references);  // 1, 3
    references = 1;
    table.push_back(block);
  }
}

bool BlockManager::can_append(Span<const int32_t> table, int64_t tokens) const {
  return can_allocate(blocks_for(tokens) - table.size());
}

void BlockManager::may_append(BlockTable& table, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - table.size();
  if (missing > 0) allocate(table, missing);
}

std::optional<BlockCopy> BlockManager::fork(BlockTable& child, Span<const int32_t> parent,
                                            int64_t tokens) {
  ORRERY_CHECK(child.empty(), "a fork fills an empty table, this one has {} blocks", child.size());
  ORRERY_CHECK(blocks_for(tokens) <= parent.size(), "{} tokens in {} blocks", tokens,
               parent.size());
  const int64_t full = tokens / models::KvCache::block_tokens();
  for (const int32_t block : parent.first(full)) {
    ORRERY_CHECK(reference_count(block) > 0, "block {} is shared after it was freed", block);
    ++reference_counts_[block];
    child.push_back(block);
  }
  const int64_t rest = tokens % models::KvCache::block_tokens();
  if (rest == 0) return std::nullopt;
  allocate(child, 1);  // 3: the child will write to it
  return BlockCopy{parent[full], child.back(), rest};
}

void BlockManager::release(BlockTable& table) {
  for (const int32_t block : table) {
    ORRERY_CHECK(reference_count(block) > 0, "block {} is freed twice", block);  // 2
    if (--reference_counts_[block] == 0) free_.push_back(block);
  }
  table.clear();
}

}  // namespace orrery::rollout
