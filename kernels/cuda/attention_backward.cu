// Attention's backward in three steps: every query's delta, which waits in dq; then dk
// and dv; then dq. The last two compute the weights of queries and keys twice over, so
// that each sum has one block that owns it (attention_backward_tile.cuh).
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_backward_keys.cuh"
#include "kernels/cuda/attention_backward_queries.cuh"

namespace orrery::kernels::cuda {
namespace {

// For heads of up to 64 columns, and for wider ones, in slices.
using NarrowTile = BackwardTile<64, 64, 3>;
using WideTile = BackwardTile<128, 32, 2>;

constexpr int kDeltaQueries = 32, kDeltaThreads = 128;

/// 16 threads a query.
__global__ void __launch_bounds__(kDeltaThreads)
    attention_delta_kernel(BackwardOp op, ItemRange range) {
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
    const float* const dout = run.at(op.dout, f, op.head_dim);
    const float* const out = run.at(op.out, f, op.head_dim);
    const float delta = sum16(lane_chain<4>(
        thread % kSumLanes, op.head_dim, [&](int64_t d) { return make_float2(dout[d], out[d]); },
        [](float2 pair, float sum) { return __fmaf_rn(pair.x, pair.y, sum); }));
    // The second half of an odd end repeats the first one's query.
    if (thread % kSumLanes == 0 && begin + mine < run.end) *run.at(op.dq, f, op.head_dim) = delta;
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

}  // namespace

void attention_backward(const Context& ctx, const AttentionBackward& op) {
  const AttentionBackwardPlan& plan = op.plan;
  if (plan.segments.size == 0 || plan.rows == 0) return;
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
  const dim3 queries(items_of(plan, plan.rows * backward.group, kDeltaQueries),
                     static_cast<unsigned>(plan.shape.kv_heads));
  attention_delta_kernel<<<queries, kDeltaThreads, 0, stream_of(ctx)>>>(backward,
                                                                        all_queries(kDeltaQueries));
  if (backward.head_dim <= NarrowTile::kDims) {
    launch<NarrowTile>(ctx, plan, backward);
  } else {
    launch<WideTile>(ctx, plan, backward);
  }
  check_launch("attention_backward");
}

}  // namespace orrery::kernels::cuda
