// Who owns which block of the paged KV cache. Pure bookkeeping: it never touches keys
// or values.
//
// A block holds the cache's block_tokens() consecutive positions of one or more
// sequences. Its reference count is the number of tables that hold it; it is free when
// that is 0. Invariants, by number (the code refers to them; a broken one throws):
//   1. A block is in free_ exactly when its count is 0. So the free blocks and those
//      with a positive count add up to blocks().
//   2. A table gives up a reference only while it has one: a block is released at most
//      as often as it was allocated or shared.
//   3. A table grows only by blocks that no other table holds, so writing to what it
//      has grown by changes nobody else's keys and values.
// A table belongs to its sequence. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>

#include "core/span.h"
#include "models/kv_cache.h"

namespace orrery::rollout {

/// The ids of the blocks of a sequence, in the order of its positions.
using BlockTable = Array<int32_t>;

/// To be made in every layer.
using BlockCopy = kernels::BlockCopy;

class BlockManager {
 public:
  explicit BlockManager(int64_t blocks);

  int64_t blocks() const { return reference_counts_.size(); }
  int64_t free_blocks() const { return free_.size(); }
  int64_t blocks_in_use() const { return blocks() - free_blocks(); }
  int32_t reference_count(int32_t block) const;

  /// The number of blocks that `tokens` positions fill, the last one perhaps partly.
  static int64_t blocks_for(int64_t tokens) {
    const int64_t block = models::KvCache::block_tokens();
    return (tokens + block - 1) / block;
  }

  bool can_allocate(int64_t count) const { return count <= free_blocks(); }

  /// Appends `count` fresh blocks to a table. REQUIRES can_allocate(count).
  void allocate(BlockTable& table, int64_t count);

  /// Whether a table can be made to hold `tokens` positions.
  bool can_append(Span<const int32_t> table, int64_t tokens) const;

  /// Makes a table hold `tokens` positions; does nothing when it already does. REQUIRES
  /// can_append(table, tokens).
  void may_append(BlockTable& table, int64_t tokens);

  /// Fills the empty table `child` with the first `tokens` positions of `parent`. Both
  /// then share the full blocks. A partly filled last block would be written by both,
  /// so the child gets a fresh block instead (which REQUIRES can_allocate(1)), and the
  /// result is the copy to make.
  std::optional<BlockCopy> fork(BlockTable& child, Span<const int32_t> parent, int64_t tokens);

  /// Gives up a table's references and empties it.
  void release(BlockTable& table);

 private:
  Array<int32_t> reference_counts_;  // by block
  Array<int32_t> free_;  // last in, first out: the cache still holds blocks used recently
};

}  // namespace orrery::rollout
