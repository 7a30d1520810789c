// Attention. Which kernel takes a segment depends on its shape; its bits do not.
#include "kernels/cuda/attention.h"

#include "kernels/cuda/attention_mma_forward.cuh"
#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/kv_layout.cuh"

namespace orrery::kernels::cuda {
namespace {

using Tile64 = AttentionTile<64, 8, 4>;
using Tile128 = AttentionTile<128, 4, 4>;

/// Segments of at most so many queries of a kv head are rows to decode.
constexpr int64_t kFewQueries = 16;
constexpr int64_t kNoLimit = int64_t{1} << 40;

template <class Rows>
void launch_rows(const Context& ctx, const ForwardOp& op, int64_t kv_heads, int64_t rows,
                 int64_t max_queries) {
  const ItemRange range{Rows::kQueries, 1, max_queries};
  // One row each: the segments are the items.
  const bool single = op.segments.size == rows && op.group <= Rows::kQueries;
  const int64_t items = single ? rows : rows * op.group / Rows::kQueries + op.segments.size;
  cudaFuncSetAttribute(attention_rows_kernel<Rows>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Rows::kBytes));
  const dim3 grid(static_cast<unsigned>(items), static_cast<unsigned>(kv_heads));
  attention_rows_kernel<Rows>
      <<<grid, Rows::kThreads, Rows::kBytes, stream_of(ctx)>>>(op, range, single);
}

template <class Tile>
void launch_tiles(const Context& ctx, const ForwardOp& op, int64_t kv_heads, int64_t rows) {
  const ItemRange range{Tile::kBlockQueries, kFewQueries + 1, kNoLimit};
  const int64_t items = rows * op.group / Tile::kBlockQueries + op.segments.size;
  cudaFuncSetAttribute(attention_tile_kernel<Tile>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Tile::kBytes));
  const dim3 grid(static_cast<unsigned>(items), static_cast<unsigned>(kv_heads));
  attention_tile_kernel<Tile><<<grid, Tile::kThreads, Tile::kBytes, stream_of(ctx)>>>(op, range);
}

/// Many queries by Tile, few by Rows.
template <class Tile, class Rows>
void launch_both(const Context& ctx, const ForwardOp& op, int64_t kv_heads, int64_t rows) {
  const bool single = op.segments.size == rows;
  if (!single || op.group > kFewQueries) launch_tiles<Tile>(ctx, op, kv_heads, rows);
  if (!single || op.group <= kFewQueries) launch_rows<Rows>(ctx, op, kv_heads, rows, kFewQueries);
}

template <class Tile>
void launch_mma(const Context& ctx, const MmaForwardOp& op, const ItemRange& range, int64_t items) {
  cudaFuncSetAttribute(attention_mma_forward_kernel<Tile>,
                       cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Tile::kBytes));
  const dim3 grid(static_cast<unsigned>(items), static_cast<unsigned>(op.pool.kv_heads),
                  static_cast<unsigned>(ceil_div(op.head_dim, Tile::kDims)));
  attention_mma_forward_kernel<Tile>
      <<<grid, Tile::kThreads, Tile::kBytes, stream_of(ctx)>>>(op, range);
}

/// Four warps share the queries of segments that have few. Of wide heads two share some
/// in any case: one warp has no registers for 16 queries of them.
template <int kDims>
void launch_mma_tiles(const Context& ctx, const MmaForwardOp& op, int64_t rows) {
  using Many = MmaForwardTile<kDims, kDims <= 64 ? 4 : 2>;
  using Few = MmaForwardTile<kDims, 1>;
  static_assert(Few::kQueries == kFewQueries);
  const int64_t segments = op.segments.size;
  const bool single = segments == rows;
  if (!single || op.group > kFewQueries) {
    launch_mma<Many>(ctx, op, {Many::kQueries, kFewQueries + 1, kNoLimit},
                     rows * op.group / Many::kQueries + segments);
  }
  if (!single || op.group <= kFewQueries)
    launch_mma<Few>(ctx, op, {Few::kQueries, 1, kFewQueries}, segments);
}

/// Of a bf16 pool.
MmaPool mma_pool(const KvPool& pool) {
  const KvBf16Blocks blocks = bf16_blocks_of(pool);
  return {blocks.keys, blocks.values, blocks.kv_heads, static_cast<int>(blocks.row)};
}

void bf16_attention_forward(const Context& ctx, const AttentionForward& op) {
  const AttentionPlan& plan = op.plan;
  const int64_t head_dim = plan.shape.head_dim;
  MmaForwardOp forward{.out = op.out.as<Bf16>(),
                       .lse = op.lse,
                       .q = op.q.as<const Bf16>(),
                       .pool = mma_pool(op.pool),
                       .segments = plan.segments,
                       .tables = plan.tables.data,
                       .group = static_cast<int>(plan.shape.heads / plan.shape.kv_heads),
                       .head_dim = static_cast<int>(head_dim),
                       .score_scale = mma_score_scale(op.scale)};
  forward.aligned = heads_aligned(forward.q, head_dim, kMmaCopy);
  forward.pairs = heads_aligned(forward.out, head_dim, 2);
  if (head_dim <= 64) {
    launch_mma_tiles<64>(ctx, forward, plan.rows);
  } else {
    launch_mma_tiles<128>(ctx, forward, plan.rows);
  }
  check_launch("attention_forward");
}

}  // namespace

void attention_forward(const Context& ctx, const AttentionForward& op) {
  const AttentionPlan& plan = op.plan;
  const int64_t rows = plan.rows, head_dim = plan.shape.head_dim, kv_heads = plan.shape.kv_heads;
  if (plan.segments.size == 0) return;
  if (op.pool.dtype == DType::kBF16) {
    bf16_attention_forward(ctx, op);
    return;
  }
  const ForwardOp forward{.out = op.out.as<float>(),
                          .lse = op.lse,
                          .q = op.q.as<const float>(),
                          .pool = blocks_of(op.pool),
                          .segments = plan.segments,
                          .tables = plan.tables.data,
                          .group = static_cast<int>(plan.shape.heads / kv_heads),
                          .head_dim = static_cast<int>(head_dim),
                          .scale = op.scale};
  if (head_dim % 4 == 0 && head_dim <= 64) {
    launch_both<Tile64, AttentionRows<64, true>>(ctx, forward, kv_heads, rows);
  } else if (head_dim % 4 == 0 && head_dim <= 128) {
    launch_both<Tile128, AttentionRows<128, true>>(ctx, forward, kv_heads, rows);
  } else if (head_dim <= 128) {
    launch_rows<AttentionRows<128, false>>(ctx, forward, kv_heads, rows, kNoLimit);
  } else if (head_dim <= 256) {
    launch_rows<AttentionRows<256, false>>(ctx, forward, kv_heads, rows, kNoLimit);
  } else {
    launch_rows<AttentionRows<1024, false>>(ctx, forward, kv_heads, rows, kNoLimit);
  }
  check_launch("attention_forward");
}

}  // namespace orrery::kernels::cuda
