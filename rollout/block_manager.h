// Who owns which block of the paged KV cache. Pure bookkeeping: it never touches keys
// or values.
//
// A block holds kKvBlock consecutive positions of one or more sequences and is free
// when its reference count is 0. Invariants (checked; a broken one throws):
//   1. free blocks + blocks with a positive count = blocks();
//   2. a block is released at most as often as it was allocated or shared;
//   3. a table grows only by blocks that nobody else refers to.
// A table is a plain vector of block ids, kept by its sequence. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/attention.h"

namespace orrery::rollout {

/// Slots [0, count) of block `from` are to be copied to block `to`, in every layer.
struct BlockCopy {
  int32_t from = 0;
  int32_t to = 0;
  int64_t count = 0;
};

class BlockManager {
 public:
  explicit BlockManager(int64_t blocks);

  int64_t blocks() const { return static_cast<int64_t>(reference_counts_.size()); }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  int64_t blocks_in_use() const { return blocks() - free_blocks(); }
  int32_t reference_count(int32_t block) const;

  /// Blocks that `tokens` positions fill, the last perhaps partly.
  static int64_t blocks_for(int64_t tokens) {
    return (tokens + kernels::kKvBlock - 1) / kernels::kKvBlock;
  }

  bool can_allocate(int64_t count) const { return count <= free_blocks(); }

  /// Appends `count` fresh blocks to a table. REQUIRES can_allocate(count).
  void allocate(std::vector<int32_t>& table, int64_t count);

  /// Whether a table can be made to hold `tokens` positions.
  bool can_append(std::span<const int32_t> table, int64_t tokens) const;

  /// Makes a table hold `tokens` positions; does nothing when it does. REQUIRES
  /// can_append(table, tokens).
  void may_append(std::vector<int32_t>& table, int64_t tokens);

  /// Fills the empty table `child` with the first `tokens` positions of `parent`: full
  /// blocks are shared; a partly filled last block would be written by both, so the
  /// child gets a fresh one (REQUIRES can_allocate(1) then) and the copy to make.
  std::optional<BlockCopy> fork(std::vector<int32_t>& child, std::span<const int32_t> parent,
                                int64_t tokens);

  /// Gives up a table's references and empties it.
  void release(std::vector<int32_t>& table);

 private:
  std::vector<int32_t> reference_counts_;
  std::vector<int32_t> free_;  // last in, first out: recently used blocks are warm in the cache
};

}  // namespace orrery::rollout
