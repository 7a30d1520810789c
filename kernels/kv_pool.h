// Keys and values of one layer, in blocks of kKvBlock positions. A sequence's block
// table names the block of each tile of attention (kernels/attention.h): position p is
// in table[p / kKvBlock], slot p % kKvBlock. How a block's elements lie in memory is
// the device's own affair.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/buffer.h"
#include "core/context.h"
#include "core/dtype.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/attention_plan.h"
#include "kernels/rope.h"

namespace orrery::kernels {

/// One layer's pool of key and value blocks: device memory in a layout that only the
/// device's kernels know. A view.
struct KvPool {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t blocks = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

/// Bytes of a pool on `device`: a multiple of 64, and proportional to `blocks`. Error
/// for a device or type without kernels, and for heads that the kernels do not take.
size_t kv_pool_bytes(Device device, DType dtype, int64_t blocks, int64_t kv_heads,
                     int64_t head_dim);

/// The pool over `memory`, which holds kv_pool_bytes() and is 64-byte aligned. Its
/// contents stay as they are.
KvPool make_kv_pool(Device device, DType dtype, int64_t blocks, int64_t kv_heads, int64_t head_dim,
                    void* memory);

/// Error, naming `op`, unless the plan was made for such a pool.
void check_pool(const char* op, const KvPool& pool, const AttentionPlan& plan);

/// Zeroes the pool.
struct KvClear {
  KvPool pool;
};
void kv_clear(const Context& ctx, const KvClear& op);

/// Writes the keys and values of the plan's segments into the pool. In a bf16 pool a
/// segment that writes a block's first slot zeroes the slots behind those it writes:
/// attention multiplies tiles whole, so that a slot must not hold what was there.
struct KvWrite {
  const KvPool& pool;
  ConstActMat k, v;  ///< [rows, kv_heads * head_dim], of the pool's element type
  const AttentionPlan& plan;
};
void kv_write(const Context& ctx, const KvWrite& op);

/// What lies between a layer's projection and its attention: rotates the queries and
/// keys of all rows in place (kernels/rope.h), then writes the keys and the values as
/// kv_write does. One pass over memory, with the bits of the two steps.
struct RopeKvWrite {
  const KvPool& pool;
  /// [rows, (heads + 2 kv_heads) * head_dim], of the pool's element type: a row's
  /// queries, then its keys, then its values.
  ActMat qkv;
  Rotation rotation;
  const AttentionPlan& plan;
};
void rope_kv_write(const Context& ctx, const RopeKvWrite& op);

/// Slots [0, count) of block `from` are to be copied to block `to`. A sequence gets its
/// own copy of a shared, partly filled block this way.
struct BlockCopy {
  int32_t from = 0;
  int32_t to = 0;
  int64_t count = 0;
};

/// Copies, in order, that were checked and uploaded; every layer's pool may then make
/// them.
struct CopyPlan {
  Vec<const BlockCopy> copies;
  int64_t slots = 0;  ///< of all copies
};

/// Error for a block outside a pool of `blocks` blocks, and for more slots than a block
/// has. `arena` holds the device's part.
CopyPlan make_copy_plan(const Context& ctx, int64_t blocks, Span<const BlockCopy> copies,
                        Arena& arena);

/// Makes the copies, one after the other. REQUIRES: the plan was made for as many
/// blocks as the pool has.
struct KvCopy {
  const KvPool& pool;
  const CopyPlan& plan;
  /// Zero the other slots of the blocks copied to: they are yet to be written.
  bool clear_rest = false;
};
void kv_copy(const Context& ctx, const KvCopy& op);

}  // namespace orrery::kernels
