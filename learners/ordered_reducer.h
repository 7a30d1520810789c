// Sums gradients in an order fixed by the number of gradient shards alone
// (docs/numerics.md): shard buffers are leaves of a complete binary tree, every inner
// node is left + right (one rounded add an element). The same bits for any number of
// ranks that divides the shards, and however early a part of the gradient is known.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "core/context.h"
#include "learners/slice_plan.h"

namespace orrery::learners {

/// Walks a rank's contiguous run of shards like a binary counter: at most log2(count) +
/// 1 buffers live at a time, the last of them a window where shards are written region
/// by region. count is a power of two.
class ShardTree {
 public:
  /// regions: rising bounds, from 0 to the elements of the gradient; the parts that a
  /// backward pass makes final one after the other, from the last to the first.
  ShardTree(Device device, std::vector<int64_t> regions, int64_t count);
  /// Adds a shard's gradient into a zeroed buffer; may tell which part is final, and is
  /// taken to have told 0 when it returns.
  using Fill =
      std::function<void(int64_t shard, const FlatView& buffer, const FinalFrom& final_from)>;
  /// Whether Fill writes this shard's regions one after the other, from the last to the
  /// second, and tells each one's begin as soon as it is final. The first region may be
  /// written at any time.
  using ByRegion = std::function<bool(int64_t shard)>;
  /// result() becomes the sum over shards [first, first + count) in tree order.
  /// `final_from` is told as soon as a part of it is final; 0 in the end.
  void sum(const Context& ctx, int64_t first, const Fill& fill, const ByRegion& by_region,
           const FinalFrom& final_from = {});
  /// Memory of the tree, overwritten by the next sum().
  std::span<float> result() const { return part_of(memory_.span<float>(), {0, elements()}); }
  /// All of the tree's buffers one after the other, result() first: anybody's between
  /// the use of a result and the next sum().
  std::span<float> memory() const { return memory_.span<float>(); }
  size_t memory_bytes() const { return memory_.bytes() + last_.bytes(); }

 private:
  int64_t elements() const { return regions_.back(); }
  std::span<float> buffer(size_t index) const;
  std::span<float> last_buffer(int64_t size);

  Device device_;
  std::vector<int64_t> regions_;
  int64_t count_;
  Buffer memory_;  // the buffers but the last
  Buffer last_;    // of a shard that ends a subtree: a window, or whole once a shard needed that
};

/// Reduce-scatter in tree order over ranks (a power of two, rank r holding the r-th
/// subtree), bucket by bucket from the last to the first while the gradient is still
/// being computed: all-to-all of slices in pieces, each summed when it is there. A rank
/// sends what it would in a ring. With `fast`: a plain all-reduce at the end, whose
/// order is the library's. Collective: construction, then send(), then finish().
class OrderedReduceScatter {
 public:
  /// Temporaries come from `arena` and must be left there until finish() has returned.
  OrderedReduceScatter(const Context& ctx, comm::Communicator& comm, std::span<float> gradient,
                       const SlicePlan& plan, bool fast, Arena& arena);
  /// This rank's gradient is final from `begin` on. Starts to send the buckets that are
  /// whole, and sums what has come from the other ranks; never waits for them.
  void send(int64_t begin);
  /// Waits. Afterwards plan.extents(rank) of the gradient hold the sum; the rest is
  /// unspecified.
  void finish();

 private:
  void sum(const comm::Communicator::Piece& piece);

  Context ctx_;
  comm::Communicator& comm_;
  std::span<float> gradient_;
  const SlicePlan& plan_;
  bool fast_;
  int64_t waiting_buckets_;  // the first ones, which are not final yet
  std::unique_ptr<comm::Communicator::AllToAll> exchange_;
};

}  // namespace orrery::learners
