// Sums gradients in an order fixed by the number of gradient shards alone
// (docs/numerics.md): shard buffers are leaves of a complete binary tree, every inner
// node is left + right (one rounded add per element). The bits are the same for any
// number of ranks that divides the shards, and however early a part of the gradient is
// known.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"
#include "learners/slice_plan.h"

namespace orrery::learners {

/// Sums a rank's contiguous run of shards, one after the other, as a binary counter
/// counts: at most log2(count) + 1 buffers live at a time, the last of them a window
/// where shards are written region by region. count is a power of two. A sum is
///   begin(); count times: begin_shard(), merge() as parts become final, end_shard().
class ShardTree {
 public:
  /// regions: rising bounds, from 0 to the elements of the gradient; the parts that a
  /// backward pass makes final one after the other, from the last to the first.
  ShardTree(Device device, std::vector<int64_t> regions, int64_t count);

  /// Between sums: gives back the tree's memory, which the next sum takes again.
  void release_memory();
  /// Sums lie in `memory` from now on, which must outlive the tree and be free for it
  /// from begin() to the last use of result(); its own is given back. by_region: every
  /// shard will be written so. Returns what is left of it. An Error that says how much
  /// is needed when it is too small.
  Vec<float> use_memory(Vec<float> memory, bool by_region);

  /// Begins a sum. One that was not finished is given up.
  void begin(const Context& ctx);
  /// A buffer for the next shard's gradient, which is to write every element: what is
  /// there is of no meaning. by_region: the caller writes the regions one after the
  /// other, from the last to the second, and calls merge() with each one's begin before
  /// it writes the next; the first region may be written at any time. The buffer may
  /// then be a window.
  FlatView begin_shard(bool by_region);
  /// The shard's gradient is final from element `begin` on, which never rises.
  void merge(int64_t begin);
  /// The shard's gradient is final.
  void end_shard();
  /// The element from which on result() is final: elements() before the last shard, 0
  /// after it.
  int64_t final_from() const { return final_from_; }

  /// Where the sum over all shards in tree order is after the last shard. Memory of the
  /// tree, overwritten by the next sum.
  Vec<float> result() { return memory().part(0, elements()); }
  /// All of the tree's own buffers one after the other, result() first. Free for other
  /// use between the use of a result and the next begin().
  Vec<float> memory();
  size_t memory_bytes() const { return memory_.bytes() + last_.bytes(); }

 private:
  int64_t elements() const { return regions_.back(); }
  int64_t stack_size() const;
  Vec<float> buffer(int64_t index) const;
  Vec<float> last_buffer(int64_t size);
  void add_to_stack(const Extent& extent);

  Device device_;
  std::vector<int64_t> regions_;
  int64_t count_;
  Buffer memory_;  // the stack's buffers, from the first use on, unless they are lent
  Buffer last_;    // of a shard that ends a subtree; a window until one needs it whole
  Vec<float> stack_, lent_last_;

  Context ctx_;            // of the sum that is being made
  int64_t shard_ = 0;      // begun shards of it
  int64_t height_ = 0;     // buffers on the stack, without the shard being written
  int64_t merges_ = 0;     // subtrees that this shard ends
  bool windowed_ = false;  // it is written to a window
  FlatView leaf_{Vec<float>()};
  int64_t known_ = 0;       // it is final from here on
  int64_t region_ = 0;      // index of the first bound that is not below known_
  int64_t final_from_ = 0;  // the result is final from here on
};

/// Reduce-scatter in tree order over ranks (a power of two, rank r holding the r-th
/// subtree), bucket by bucket from the last to the first while the gradient is still
/// being computed: all-to-all of slices in pieces, each summed when it is there. A rank
/// sends what it would in a ring. With `fast`: a plain all-reduce at the end, whose
/// order is the library's. Collective: construction, then send(), then finish().
class OrderedReduceScatter {
 public:
  /// Temporaries come from `arena` and must be left there until finish() has returned.
  OrderedReduceScatter(const Context& ctx, comm::Communicator& comm, Vec<float> gradient,
                       const SlicePlan& plan, bool fast, Arena& arena);
  /// Takes from `arena`, which measures, what the constructor takes.
  static void measure(int ranks, const SlicePlan& plan, bool fast, Arena& arena);
  /// This rank's gradient is final from `begin` on. Starts to send the buckets that are
  /// whole, and sums what has come from the other ranks; never waits for them.
  void send(int64_t begin);
  /// Waits. Afterwards plan.extents(rank) of the gradient hold the sum; the rest is
  /// unspecified.
  void finish();

 private:
  void sum(const comm::DataPlane::Piece& piece);

  Context ctx_;
  comm::Communicator& comm_;
  Vec<float> gradient_;
  const SlicePlan& plan_;
  bool fast_;
  int64_t waiting_buckets_;  // the first ones, which are not final yet
  std::unique_ptr<comm::DataPlane::AllToAll> exchange_;
};

}  // namespace orrery::learners
