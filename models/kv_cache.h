// Key and value blocks of all layers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/kv_pool.h"
#include "models/config.h"

namespace orrery::models {

/// One block id stands for that block in every layer.
class KvCache {
 public:
  /// dtype: of keys and values, the model's compute dtype. memory: used when it is
  /// large enough, and must then outlive the cache; else the cache takes its own.
  KvCache(const ModelConfig& config, DType dtype, Device device, int64_t blocks,
          Vec<float> memory = {});
  const kernels::KvPool& layer(int64_t index) const { return layers_[index]; }
  int64_t blocks() const { return blocks_; }
  /// Makes the copies, in order, in every layer, and zeroes the slots behind what was
  /// copied, which attention may multiply before they are written. `arena` holds their
  /// list meanwhile.
  void copy_blocks(const Context& ctx, Span<const kernels::BlockCopy> copies, Arena& arena) const;
  /// Zeroes lent memory, into which others may have written: a slot that nothing was
  /// written to may be multiplied by 0, and must not hold a NaN pattern. Nothing to do
  /// for memory of its own.
  void clear_lent(const Context& ctx) const;
  size_t own_bytes() const { return own_.bytes(); }

  /// Positions of a block.
  static int64_t block_tokens() { return kernels::kKvBlock; }
  static size_t bytes_per_block(const ModelConfig& config, DType dtype, Device device = {});

 private:
  int64_t blocks_;
  Buffer own_;  // empty when memory is lent
  Array<kernels::KvPool> layers_;
};

}  // namespace orrery::models
