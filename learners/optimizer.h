// AdamW with its state sharded over the ranks of a dp axis (ZeRO-1, Rajbhandari et al.
// 2020): each rank keeps the moments of its part of the flat parameters
// (learners/slice_plan.h), updates that part, and the parts are gathered.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "kernels/optimizer.h"
#include "learners/slice_plan.h"

namespace orrery::learners {

class ShardedAdamW {
 public:
  /// `rank` of `ranks` along the dp axis. Slices are cut at multiples of kNormChunk, so
  /// that the gradient norm's bits do not depend on the number of ranks.
  ShardedAdamW(Device device, int64_t flat_size, int ranks, int rank);

  const SlicePlan& plan() const { return plan_; }
  /// This rank's part, rising. m and v hold its elements one after the other.
  std::span<const Extent> extents() const { return owned_[rank_]; }
  Vec<float> m() const { return m_.vec<float>(); }
  Vec<float> v() const { return v_.vec<float>(); }

  struct Result {
    double grad_norm = 0;  ///< before clipping
    /// The norm was not finite: nothing was changed, t was not counted.
    bool skipped = false;
  };
  /// Collective over `comm`, the dp axis's ranks. `gradient`: flat, holding the summed
  /// gradient at least in this rank's extents; `parameters`: the whole flat buffer,
  /// updated on every rank. clip_grad 0: no clipping.
  Result step(const Context& ctx, comm::Communicator& comm, Vec<float> parameters,
              Vec<const float> gradient, const kernels::AdamWParams& params, double clip_grad);

  int64_t t() const { return t_; }  ///< updates done
  void set_t(int64_t t) { t_ = t; }
  void reset(const Context& ctx);  ///< moments and t to zero: a new stage
  size_t memory_bytes() const { return m_.bytes() + v_.bytes(); }

 private:
  int rank_;
  SlicePlan plan_;
  std::vector<std::vector<Extent>> owned_,
      owned_chunks_;  // of each rank, in elements and in chunks
  int64_t t_ = 0;
  Buffer m_, v_;
  Buffer chunk_sums_;
};

}  // namespace orrery::learners
