// Sums gradients in an order fixed by the number of gradient shards alone (docs/numerics.md): shard buffers
// are leaves of a complete binary tree, every inner node is left + right (one rounded add an element). The
// same bits for any number of ranks that divides the shards.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "core/context.h"

namespace orrery {

/// Walks a rank's contiguous run of shards like a binary counter: at most log2(count) + 1 buffers live at a
/// time. count is a power of two. `fill(shard, buffer)` adds shard's gradient into a zeroed buffer.
class ShardTree {
 public:
  ShardTree(Device device, int64_t elements, int64_t count);
  /// Returns the sum over shards [first, first + count) in tree order, in a buffer owned by the tree until
  /// the next call.
  std::span<float> sum(const Context& ctx, int64_t first,
                       const std::function<void(int64_t shard, std::span<float> buffer)>& fill);
  size_t memory_bytes() const;

 private:
  int64_t elements_, count_;
  std::vector<Buffer> buffers_;
};

/// Reduce-scatter in tree order over ranks (size a power of two, rank r holding the r-th subtree): all-to-all
/// of slices in pieces, each summed when it is there. A rank sends what it would in a ring. slice_offsets has
/// size() + 1 entries. Returns this rank's slice of `gradient`, which then holds the sum; the other slices
/// are left unspecified. With `fast`: a plain all-reduce, whose order is the library's.
std::span<float> reduce_scatter_ordered(const Context& ctx, Communicator& comm, std::span<float> gradient,
                                        std::span<const int64_t> slice_offsets, bool fast, Arena& arena);

/// Cuts [0, elements) into `ranks` slices at multiples of `chunk`, as even as that allows. ranks + 1 offsets.
std::vector<int64_t> slice_offsets(int64_t elements, int64_t chunk, int ranks);

}  // namespace orrery
