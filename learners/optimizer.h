// AdamW with its state sharded over the learners (ZeRO-1, Rajbhandari et al. 2020): each rank keeps the
// moments of one slice of the flat parameters, updates that slice, and the slices are gathered.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "core/buffer.h"
#include "kernels/optimizer.h"

namespace orrery {

class ShardedAdamW {
 public:
  /// Slices are cut at multiples of kNormChunk, so that the gradient norm's bits do not depend on the number
  /// of ranks.
  ShardedAdamW(Device device, int64_t flat_size, int ranks, int rank);

  std::span<const int64_t> offsets() const { return offsets_; }  ///< ranks + 1
  int64_t begin() const { return offsets_[static_cast<size_t>(rank_)]; }
  int64_t end() const { return offsets_[static_cast<size_t>(rank_) + 1]; }
  std::span<float> m() { return m_.span<float>(); }  ///< this rank's slice
  std::span<float> v() { return v_.span<float>(); }

  struct Result {
    double grad_norm = 0;  ///< before clipping
    bool skipped = false;  ///< the norm was not finite: nothing was changed, t was not counted
  };
  /// Collective. `gradient`: this rank's slice of the summed gradient; `parameters`: the whole flat buffer,
  /// updated on every rank. clip_grad 0: no clipping.
  Result step(const Context& ctx, Communicator& comm, std::span<float> parameters,
              std::span<const float> gradient, const AdamWParams& params, double clip_grad);

  int64_t t() const { return t_; }  ///< updates done
  void set_t(int64_t t) { t_ = t; }
  void reset();  ///< moments and t to zero: a new stage
  size_t memory_bytes() const { return m_.bytes() + v_.bytes(); }

 private:
  int rank_;
  std::vector<int64_t> offsets_;
  int64_t t_ = 0;
  Buffer m_, v_;
  std::vector<float> chunk_sums_;
  std::vector<int64_t> chunk_offsets_;
};

}  // namespace orrery
