// A half-warp takes a vector: its threads are the lanes of the sum of squares.
#include "kernels/cuda/rmsnorm.h"

#include "kernels/checks.h"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 64;  // of a block: four vectors
constexpr int kAhead = 8;     // elements that a lane loads at a time

struct Norm {
  Heads<float> y, h;  ///< h, delta: without memory where there is no residual
  Heads<const float> x, delta;
  float* rstd;
  const float* weight;
  float eps;
};

template <class T>
__device__ T* vector_at(const Heads<T>& m, int64_t token, int64_t head) {
  return m.data + token * m.stride + head * m.head_dim;
}

/// The sum of two loads: of one element where kResidual is not set.
template <bool kResidual>
__global__ void __launch_bounds__(kThreads) norm_kernel(Norm op) {
  const int64_t vectors = op.x.tokens * op.x.heads;
  const int64_t dim = op.x.head_dim;
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kSumLanes;
  const bool there = index < vectors;
  const int lane = threadIdx.x % kSumLanes;
  const int64_t token = index / op.x.heads, head = index % op.x.heads;
  const float* const x = vector_at(op.x, token, head);
  const float* const delta = vector_at(op.delta, token, head);
  const auto element = [&](int64_t i) { return kResidual ? __fadd_rn(x[i], delta[i]) : x[i]; };
  const float acc = lane_chain<kAhead>(lane, there ? dim : 0, element, [](float value, float sum) {
    return __fmaf_rn(value, value, sum);
  });
  const float mean = __fdiv_rn(sum16(acc), static_cast<float>(dim));
  const float rstd = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, op.eps)));
  if (!there) return;
  if (op.rstd != nullptr && lane == 0) op.rstd[index] = rstd;
  float* const y = vector_at(op.y, token, head);
  float* const h = vector_at(op.h, token, head);
  // Element i is read and written by one thread, so h or y may be x.
#pragma unroll 4
  for (int64_t i = lane; i < dim; i += kSumLanes) {
    const float value = element(i);
    if (kResidual) h[i] = value;
    y[i] = __fmul_rn(__fmul_rn(value, rstd), op.weight[i]);
  }
}

struct NormGradients {
  Heads<float> dx;
  Heads<const float> dy, x;
  float* dweight;
  const float* rstd;
  const float* weight;
  bool accumulate, accumulate_dweight;
};

__global__ void __launch_bounds__(kThreads) gradient_kernel(NormGradients op) {
  const int64_t dim = op.x.head_dim;
  const int64_t index = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kSumLanes;
  const bool there = index < op.x.tokens * op.x.heads;
  const int lane = threadIdx.x % kSumLanes;
  const int64_t token = index / op.x.heads, head = index % op.x.heads;
  const float* const x = vector_at(op.x, token, head);
  const float* const dy = vector_at(op.dy, token, head);
  struct Pair {
    float g, x;
  };
  const auto pair = [&](int64_t i) { return Pair{__fmul_rn(dy[i], op.weight[i]), x[i]}; };
  const float acc = lane_chain<kAhead>(lane, there ? dim : 0, pair,
                                       [](Pair p, float sum) { return __fmaf_rn(p.g, p.x, sum); });
  const float sum = sum16(acc);
  if (!there) return;
  const float rstd = op.rstd[index];
  const float along = __fmul_rn(__fmul_rn(__fdiv_rn(sum, static_cast<float>(dim)), rstd), rstd);
  float* const dx = vector_at(op.dx, token, head);
#pragma unroll 4
  for (int64_t i = lane; i < dim; i += kSumLanes) {
    const Pair p = pair(i);
    const float across = __fmaf_rn(-along, p.x, p.g);
    dx[i] = op.accumulate ? __fmaf_rn(across, rstd, dx[i]) : __fmul_rn(across, rstd);
  }
}

/// dweight: a column is a chain over tokens and heads, which one thread sums. The other
/// threads of its block are there to load ahead of it.
struct WeightTile {
  static constexpr int kColumns = 16, kThreads = 256;
  static constexpr int kApart = kThreads / kColumns;  // vectors between two of a thread's
  static constexpr int kEach = 8;                     // vectors that a thread loads
  static constexpr int kVectors = kApart * kEach;
};

/// The block reads a tile of vectors into registers while its chains walk over the tile
/// before, which is in shared memory; so a tile is written where no chain reads, and
/// one wait a tile is enough.
__global__ void __launch_bounds__(WeightTile::kThreads) weight_kernel(NormGradients op) {
  using Tile = WeightTile;
  struct Factors {
    float dy, normed;
  };
  __shared__ Factors tiles[2][Tile::kVectors][Tile::kColumns];
  const int64_t vectors = op.x.tokens * op.x.heads, heads = op.x.heads;
  const int mine = threadIdx.x % Tile::kColumns, first = threadIdx.x / Tile::kColumns;
  const int64_t column = int64_t{blockIdx.x} * Tile::kColumns + mine;
  const bool there = column < op.x.head_dim;
  // The next vector to load, by number and by place: a division for each would cost
  // more than its loads.
  int64_t next = first, token = first / heads, head = first % heads;
  const int64_t more_tokens = Tile::kApart / heads, more_heads = Tile::kApart % heads;
  float x[Tile::kEach], dy[Tile::kEach], rstd[Tile::kEach];
  const auto load = [&] {
#pragma unroll
    for (int e = 0; e < Tile::kEach; ++e) {
      x[e] = dy[e] = rstd[e] = 0.0f;
      if (there && next < vectors) {
        x[e] = vector_at(op.x, token, head)[column];
        dy[e] = vector_at(op.dy, token, head)[column];
        rstd[e] = op.rstd[next];
      }
      next += Tile::kApart;
      token += more_tokens;
      head += more_heads;
      if (head >= heads) {
        head -= heads;
        ++token;
      }
    }
  };
  const auto store = [&](int64_t tile) {
#pragma unroll
    for (int e = 0; e < Tile::kEach; ++e)
      tiles[tile % 2][first + e * Tile::kApart][mine] = {dy[e], __fmul_rn(x[e], rstd[e])};
  };
  const bool sums = there && first == 0;
  float sum = sums && op.accumulate_dweight ? op.dweight[column] : 0.0f;
  const int64_t count = ceil_div(vectors, Tile::kVectors);
  load();
  store(0);
  __syncthreads();
  for (int64_t tile = 0; tile < count; ++tile) {
    const bool more = tile + 1 < count;
    if (more) load();
    if (sums) {
      const int64_t left = vectors - tile * Tile::kVectors;
      const int rows = left < Tile::kVectors ? static_cast<int>(left) : Tile::kVectors;
#pragma unroll 16
      for (int v = 0; v < rows; ++v) {
        const Factors f = tiles[tile % 2][v][mine];
        sum = __fmaf_rn(f.dy, f.normed, sum);
      }
    }
    if (more) store(tile + 1);
    __syncthreads();
  }
  if (sums) op.dweight[column] = sum;
}

unsigned blocks_of(int64_t vectors) {
  return static_cast<unsigned>(ceil_div(vectors * kSumLanes, kThreads));
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op) {
  const Heads<const float> x = as_heads(op.x.as<const float>(), op.heads);
  const int64_t vectors = x.tokens * x.heads;
  if (vectors == 0) return;
  norm_kernel<false><<<blocks_of(vectors), kThreads, 0, stream_of(ctx)>>>(
      Norm{.y = as_heads(op.y.as<float>(), op.heads),
           .x = x,
           .rstd = op.rstd.data,
           .weight = op.weight.data,
           .eps = op.eps});
  check_launch("rmsnorm_forward");
}

void rmsnorm_residual_forward(const Context& ctx, const RmsnormResidualForward& op) {
  const Heads<const float> x = as_heads(op.x, 1);
  if (x.tokens == 0) return;
  norm_kernel<true><<<blocks_of(x.tokens), kThreads, 0, stream_of(ctx)>>>(
      Norm{.y = as_heads(op.y.as<float>(), 1),
           .h = as_heads(op.h, 1),
           .x = x,
           .delta = as_heads(op.delta, 1),
           .rstd = op.rstd.data,
           .weight = op.weight.data,
           .eps = op.eps});
  check_launch("rmsnorm_residual_forward");
}

void rmsnorm_backward(const Context& ctx, const RmsnormBackward& op) {
  if (op.dx_rounded.data != nullptr)
    require_dtype("rmsnorm_backward", "dx_rounded", op.dx_rounded.dtype, DType::kF32);
  const NormGradients norm{.dx = as_heads(op.dx.as<float>(), op.heads),
                           .dy = as_heads(op.dy.as<const float>(), op.heads),
                           .x = as_heads(op.x.as<const float>(), op.heads),
                           .dweight = op.dweight.data,
                           .rstd = op.rstd.data,
                           .weight = op.weight.data,
                           .accumulate = op.accumulate,
                           .accumulate_dweight = op.accumulate_dweight};
  if (norm.x.head_dim == 0) return;
  // dweight first: it needs dy, which dx may overwrite.
  weight_kernel<<<static_cast<unsigned>(ceil_div(norm.x.head_dim, WeightTile::kColumns)),
                  WeightTile::kThreads, 0, stream_of(ctx)>>>(norm);
  const int64_t vectors = norm.x.tokens * norm.x.heads;
  if (vectors > 0) gradient_kernel<<<blocks_of(vectors), kThreads, 0, stream_of(ctx)>>>(norm);
  check_launch("rmsnorm_backward");
}

}  // namespace orrery::kernels::cuda
