// Attention's backward in three steps: every query's delta, which waits in dq; then dk
// and dv; then dq. The last two compute the weights of queries and keys twice over, so
// that each sum has one block that owns it (attention_backward_tile.cuh).
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_backward_keys.cuh"
#include "kernels/cuda/attention_backward_queries.cuh"
#include "kernels/cuda/attention_mma_backward_keys.cuh"
#include "kernels/cuda/attention_mma_backward_queries.cuh"

namespace orrery::kernels::cuda {
namespace {

// For heads of up to 64 columns, and for wider ones, in slices.
using NarrowTile = BackwardTile<64, 64, 3>;
using WideTile = BackwardTile<128, 32, 2>;

constexpr int kDeltaQueries = 32, kDeltaThreads = 128;

__device__ inline float value_of(float x) { return x; }
__device__ inline float value_of(Bf16 x) { return f32_of(x); }
__device__ inline void keep_delta(const BackwardOp& op, const QueryRun& run, int query,
                                  float delta) {
  *run.at(op.dq, query, op.head_dim) = delta;
}

/// 16 threads a query.
template <class Op>
__global__ void __launch_bounds__(kDeltaThreads) attention_delta_kernel(Op op, ItemRange range) {
  const QueryItem item = find_queries(op.segments, op.group, range, blockIdx.x);
  if (item.segment < 0) return;
  const AttentionSegment segment = op.segments.data[item.segment];
  const int begin = static_cast<int>(item.begin), thread = threadIdx.x;
  const QueryRun run{segment.row_begin, int64_t{blockIdx.y} * op.group, op.group, begin,
                     min(static_cast<int>(segment.rows) * op.group, begin + kDeltaQueries)};
  // Both halves of a warp take as many steps.
  for (int local = thread / kWarp * 2; begin + local < run.end;
       local += kDeltaThreads / kSumLanes) {
    const int mine = local + thread % kWarp / kSumLanes;
    const int f = run.query(mine);
    const auto* const dout = run.at(op.dout, f, op.head_dim);
    const auto* const out = run.at(op.out, f, op.head_dim);
    const float delta = sum16(lane_chain<4>(
        thread % kSumLanes, op.head_dim,
        [&](int64_t d) { return make_float2(value_of(dout[d]), value_of(out[d])); },
        [](float2 pair, float sum) { return __fmaf_rn(pair.x, pair.y, sum); }));
    // The second half of an odd end repeats the first one's query.
    if (thread % kSumLanes == 0 && begin + mine < run.end) keep_delta(op, run, f, delta);
  }
}

template <class T>
bool in_quads(Mat<T> m) {
  return m.stride % 4 == 0 && reinterpret_cast<uintptr_t>(m.data) % 16 == 0;
}

ItemRange all_queries(int tile) { return {tile, 0, int64_t{1} << 40}; }

unsigned items_of(const AttentionBackwardPlan& plan, int64_t queries, int64_t tile) {
  return static_cast<unsigned>(queries / tile + plan.segments.size);
}

template <class Op>
void launch_delta(const Context& ctx, const AttentionBackwardPlan& plan, const Op& op) {
  const dim3 queries(items_of(plan, plan.rows * op.group, kDeltaQueries),
                     static_cast<unsigned>(plan.shape.kv_heads));
  attention_delta_kernel<Op>
      <<<queries, kDeltaThreads, 0, stream_of(ctx)>>>(op, all_queries(kDeltaQueries));
}

template <class Tile>
void launch(const Context& ctx, const AttentionBackwardPlan& plan, const BackwardOp& op) {
  const auto kv_heads = static_cast<unsigned>(plan.shape.kv_heads);
  const int slices = static_cast<int>(ceil_div(op.head_dim, Tile::kDims));
  cudaFuncSetAttribute(attention_backward_keys_kernel<Tile>,
                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Tile::kKeysBytes));
  cudaFuncSetAttribute(attention_backward_queries_kernel<Tile>,
                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Tile::kQueriesBytes));
  const dim3 key_tiles(items_of(plan, plan.rows, Tile::kKeys), kv_heads,
                       static_cast<unsigned>(slices));
  attention_backward_keys_kernel<Tile>
      <<<key_tiles, Tile::kThreads, Tile::kKeysBytes, stream_of(ctx)>>>(op);
  const dim3 query_tiles(items_of(plan, plan.rows * op.group, Tile::kQueries), kv_heads);
  const ItemRange range = all_queries(Tile::kQueries);
  for (int slice = slices - 1; slice >= 0; --slice) {
    attention_backward_queries_kernel<Tile>
        <<<query_tiles, Tile::kThreads, Tile::kQueriesBytes, stream_of(ctx)>>>(op, range, slice);
  }
}

template <int kDims>
void launch_mma(const Context& ctx, const AttentionBackwardPlan& plan, const MmaBackwardOp& op) {
  using Keys = MmaKeysTile<kDims>;
  using Queries = MmaQueriesTile<kDims>;
  const auto kv_heads = static_cast<unsigned>(plan.shape.kv_heads);
  const int slices = static_cast<int>(ceil_div(op.head_dim, kDims));
  cudaFuncSetAttribute(attention_mma_keys_kernel<Keys>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Keys::kBytes));
  cudaFuncSetAttribute(attention_mma_queries_kernel<Queries>,
                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                       static_cast<int>(Queries::kBytes));
  const dim3 key_tiles(items_of(plan, plan.rows, Keys::kKeys), kv_heads,
                       static_cast<unsigned>(slices));
  attention_mma_keys_kernel<Keys><<<key_tiles, Keys::kThreads, Keys::kBytes, stream_of(ctx)>>>(op);
  const dim3 query_tiles(items_of(plan, plan.rows * op.group, Queries::kQueries), kv_heads);
  const ItemRange range = all_queries(Queries::kQueries);
  for (int slice = slices - 1; slice >= 0; --slice) {
    attention_mma_queries_kernel<Queries>
        <<<query_tiles, Queries::kThreads, Queries::kBytes, stream_of(ctx)>>>(op, range, slice);
  }
}

void bf16_attention_backward(const Context& ctx, const AttentionBackward& op) {
  const AttentionBackwardPlan& plan = op.plan;
  const int64_t head_dim = plan.shape.head_dim;
  MmaBackwardOp backward{.dq = op.dq.as<Bf16>(),
                         .dk = op.dk.as<Bf16>(),
                         .dv = op.dv.as<Bf16>(),
                         .dout = op.dout.as<const Bf16>(),
                         .out = op.out.as<const Bf16>(),
                         .q = op.q.as<const Bf16>(),
                         .k = op.k.as<const Bf16>(),
                         .v = op.v.as<const Bf16>(),
                         .lse = op.lse,
                         .segments = plan.segments,
                         .group = static_cast<int>(plan.shape.heads / plan.shape.kv_heads),
                         .head_dim = static_cast<int>(head_dim),
                         .scale = op.scale,
                         .score_scale = mma_score_scale(op.scale)};
  const auto aligned = [&](auto m) { return heads_aligned(m, head_dim, kMmaCopy); };
  const auto in_pairs = [&](auto m) { return heads_aligned(m, head_dim, 2); };
  backward.aligned =
      aligned(backward.q) && aligned(backward.dout) && aligned(backward.k) && aligned(backward.v);
  backward.pairs = in_pairs(backward.dq) && in_pairs(backward.dk) && in_pairs(backward.dv);
  launch_delta(ctx, plan, backward);
  if (head_dim <= 64) {
    launch_mma<64>(ctx, plan, backward);
  } else {
    launch_mma<128>(ctx, plan, backward);
  }
  check_launch("attention_backward");
}

}  // namespace

void attention_backward(const Context& ctx, const AttentionBackward& op) {
  const AttentionBackwardPlan& plan = op.plan;
  if (plan.segments.size == 0 || plan.rows == 0) return;
  if (op.q.dtype == DType::kBF16) {
    bf16_attention_backward(ctx, op);
    return;
  }
  BackwardOp backward{.dq = op.dq.as<float>(),
                      .dk = op.dk.as<float>(),
                      .dv = op.dv.as<float>(),
                      .dout = op.dout.as<const float>(),
                      .out = op.out.as<const float>(),
                      .q = op.q.as<const float>(),
                      .k = op.k.as<const float>(),
                      .v = op.v.as<const float>(),
                      .lse = op.lse,
                      .segments = plan.segments,
                      .group = static_cast<int>(plan.shape.heads / plan.shape.kv_heads),
                      .head_dim = static_cast<int>(plan.shape.head_dim),
                      .scale = op.scale};
  backward.quads = backward.head_dim % 4 == 0 && in_quads(backward.q) && in_quads(backward.k) &&
                   in_quads(backward.v) && in_quads(backward.dout);
  launch_delta(ctx, plan, backward);
  if (backward.head_dim <= NarrowTile::kDims) {
    launch<NarrowTile>(ctx, plan, backward);
  } else {
    launch<WideTile>(ctx, plan, backward);
  }
  check_launch("attention_backward");
}

}  // namespace orrery::kernels::cuda
