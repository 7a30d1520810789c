// The gradient of a norm's weight: a column is a chain over tokens and heads.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/run_sums.cuh"
#include "kernels/rmsnorm.h"

namespace orrery::kernels::cuda {

template <class T>
__device__ T* vector_at(const Heads<T>& m, int64_t token, int64_t head) {
  return m.data + token * m.stride + head * m.head_dim;
}

template <class T>
struct NormGradients {
  Heads<T> dx;
  Heads<const T> dy, x;
  Heads<Bf16> dx_rounded;  ///< or without memory
  float* dweight;
  const float* rstd;
  const float* weight;
  bool accumulate, accumulate_dweight;
};

template <class T>
NormGradients<T> norm_gradients(const RmsnormBackward& op) {
  NormGradients<T> norm{.dx = as_heads(op.dx.as<T>(), op.heads),
                        .dy = as_heads(op.dy.as<const T>(), op.heads),
                        .x = as_heads(op.x.as<const T>(), op.heads),
                        .dweight = op.dweight.data,
                        .rstd = op.rstd.data,
                        .weight = op.weight.data,
                        .accumulate = op.accumulate,
                        .accumulate_dweight = op.accumulate_dweight};
  if (op.dx_rounded.data != nullptr) norm.dx_rounded = as_heads(op.dx_rounded.as<Bf16>(), op.heads);
  return norm;
}

/// dweight in one chain, which one thread sums. The other threads of its block are
/// there to load ahead of it.
struct WeightTile {
  static constexpr int kColumns = 16, kThreads = 256;
  static constexpr int kApart = kThreads / kColumns;  // vectors between two of a thread's
  static constexpr int kEach = 8;                     // vectors that a thread loads
  static constexpr int kVectors = kApart * kEach;
};

/// The block reads a tile of vectors into registers while its chains walk over the tile
/// before, which is in shared memory; so a tile is written where no chain reads, and
/// one wait a tile is enough.
template <class T>
__global__ void __launch_bounds__(WeightTile::kThreads) weight_kernel(NormGradients<T> op) {
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
        x[e] = load_element(vector_at(op.x, token, head) + column);
        dy[e] = load_element(vector_at(op.dy, token, head) + column);
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

/// A run of vectors of a column, one after the other.
template <class T>
struct ColumnWalk {
  struct Factors {
    float x, dy, rstd;
  };
  const T *x, *dy;
  const float* rstd;
  int64_t heads, dim, x_row, dy_row;  ///< *_row: from a row's last vector to the next's first
  int64_t head = 0;

  __device__ ColumnWalk(const NormGradients<T>& op, int64_t column, int64_t token)
      : x(vector_at(op.x, token, 0) + column),
        dy(vector_at(op.dy, token, 0) + column),
        rstd(op.rstd + token * op.x.heads),
        heads(op.x.heads),
        dim(op.x.head_dim),
        x_row(op.x.stride - (heads - 1) * dim),
        dy_row(op.dy.stride - (heads - 1) * dim) {}
  __device__ Factors next() {
    const Factors factors{load_element(x), load_element(dy), *rstd++};
    const bool ends_row = ++head == heads;
    x += ends_row ? x_row : dim;
    dy += ends_row ? dy_row : dim;
    if (ends_row) head = 0;
    return factors;
  }
};

/// dweight in runs of rows. The loads of kAhead vectors do not wait for the chain.
template <class T, int kColumns>
__global__ void __launch_bounds__(kRunThreads)
    weight_runs_kernel(NormGradients<T> op, const __grid_constant__ RunRows runs) {
  constexpr int kAhead = 8;
  const auto sum_of = [&](int64_t column, int64_t begin, int64_t end) {
    using Walk = ColumnWalk<T>;
    Walk walk(op, column, begin);
    float sum = 0.0f;
    const auto add = [&](const typename Walk::Factors& f) {
      sum = __fmaf_rn(f.dy, __fmul_rn(f.x, f.rstd), sum);
    };
    int64_t left = (end - begin) * op.x.heads;
    for (; left >= kAhead; left -= kAhead) {
      typename Walk::Factors factors[kAhead];
#pragma unroll
      for (int a = 0; a < kAhead; ++a) factors[a] = walk.next();
#pragma unroll
      for (int a = 0; a < kAhead; ++a) add(factors[a]);
    }
    for (; left > 0; --left) add(walk.next());
    return sum;
  };
  add_runs<kColumns>(op.dweight, op.x.head_dim, op.accumulate_dweight, runs, sum_of);
}

template <class T>
void launch_weight_runs(const Context& ctx, NormGradients<T> norm, Span<const int64_t> run_ends) {
  const auto rows_from = [](auto heads, int64_t first) {
    heads.data += first * heads.stride;
    return heads;
  };
  for_runs(run_ends, [&](const RunRows& runs, int64_t first) {
    NormGradients<T> part = norm;
    part.x = rows_from(norm.x, first), part.dy = rows_from(norm.dy, first);
    part.rstd += first * norm.x.heads;
    const int64_t dim = norm.x.head_dim;
    if (dim <= kMostFewRunColumns) {
      const auto blocks = static_cast<unsigned>(ceil_div(dim, kFewRunColumns));
      weight_runs_kernel<T, kFewRunColumns><<<blocks, kRunThreads, 0, stream_of(ctx)>>>(part, runs);
    } else {
      const auto blocks = static_cast<unsigned>(ceil_div(dim, kRunColumns));
      weight_runs_kernel<T, kRunColumns><<<blocks, kRunThreads, 0, stream_of(ctx)>>>(part, runs);
    }
    check_launch("rmsnorm_backward");
    norm.accumulate_dweight = true;
  });
}

/// dweight of all rows. It needs dy, which dx may overwrite.
template <class T>
void weight_gradient(const Context& ctx, const NormGradients<T>& norm,
                     Span<const int64_t> run_ends) {
  if (!run_ends.empty()) return launch_weight_runs(ctx, norm, run_ends);
  weight_kernel<T><<<static_cast<unsigned>(ceil_div(norm.x.head_dim, WeightTile::kColumns)),
                     WeightTile::kThreads, 0, stream_of(ctx)>>>(norm);
  check_launch("rmsnorm_backward");
}

}  // namespace orrery::kernels::cuda
