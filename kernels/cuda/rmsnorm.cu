// In f32 a half-warp takes a vector: its threads are the lanes of the sum of squares.
// Sums of 256 lanes are in rmsnorm_dot16.cuh.
#include "kernels/cuda/rmsnorm.h"

#include "kernels/checks.h"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rmsnorm_dot16.cuh"

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

__global__ void __launch_bounds__(kThreads) gradient_kernel(NormGradients<float> op) {
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

unsigned blocks_of(int64_t vectors) {
  return static_cast<unsigned>(ceil_div(vectors * kSumLanes, kThreads));
}

template <class T>
void backward_dot16(const Context& ctx, const RmsnormBackward& op) {
  const NormGradients<T> norm = norm_gradients<T>(op);
  // dweight first: it needs dy, which dx may overwrite.
  weight_gradient(ctx, norm, op.run_ends);
  if (norm.x.tokens == 0) return;
  launch_gradient_dot16(ctx, norm, op);
  check_launch("rmsnorm_backward");
}

}  // namespace

void rmsnorm_forward(const Context& ctx, const RmsnormForward& op) {
  if (op.numerics == NumericsClass::kDot16) {
    if (op.x.dtype == DType::kBF16) return forward_dot16<Bf16, Bf16>(ctx, op);
    return op.y.dtype == DType::kBF16 ? forward_dot16<float, Bf16>(ctx, op)
                                      : forward_dot16<float, float>(ctx, op);
  }
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
  if (op.numerics == NumericsClass::kDot16)
    return op.y.dtype == DType::kBF16 ? residual_forward_dot16<Bf16>(ctx, op)
                                      : residual_forward_dot16<float>(ctx, op);
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
  if (op.x.cols == 0) return;
  if (op.numerics == NumericsClass::kDot16)
    return op.x.dtype == DType::kBF16 ? backward_dot16<Bf16>(ctx, op)
                                      : backward_dot16<float>(ctx, op);
  if (op.dx_rounded.data != nullptr)
    require_dtype("rmsnorm_backward", "dx_rounded", op.dx_rounded.dtype, DType::kF32);
  const NormGradients<float> norm = norm_gradients<float>(op);
  weight_gradient(ctx, norm, op.run_ends);
  const int64_t vectors = norm.x.tokens * norm.x.heads;
  if (vectors > 0) gradient_kernel<<<blocks_of(vectors), kThreads, 0, stream_of(ctx)>>>(norm);
  check_launch("rmsnorm_backward");
}

}  // namespace orrery::kernels::cuda
