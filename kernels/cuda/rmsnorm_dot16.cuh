// Norms in the class dot16-rz25, whose sums have 256 lanes (docs/numerics.md). A warp
// takes a vector, and a thread eight of the lanes: neighbours, where the vector is made
// of packets, or each 32nd one.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rmsnorm_weight.cuh"

namespace orrery::kernels::cuda {

inline constexpr int kWarpLanes = 256, kOwnLanes = kWarpLanes / kWarp;
static_assert(kOwnLanes == kPacket);
inline constexpr int kNormWarps = 4;  // of a block

/// The fold of a sum of 256 lanes: every thread of the warp gets it. own[v] is lane
/// kPacket * thread + v, or without packets 32 v + thread.
template <int kElements>
__device__ float sum256(float (&own)[kOwnLanes]) {
  const auto fold_own = [&] {
#pragma unroll
    for (int half = kOwnLanes / 2; half > 0; half /= 2) {
#pragma unroll
      for (int v = 0; v < half; ++v) own[v] = __fadd_rn(own[v], own[v + half]);
    }
  };
  // Lanes that are 128 apart come first.
  if constexpr (kElements == 1) fold_own();
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
#pragma unroll
    for (int v = 0; v < kElements; ++v)
      own[v] = __fadd_rn(own[v], __shfl_xor_sync(kAllThreads, own[v], step));
  }
  if constexpr (kElements != 1) fold_own();
  return own[0];
}

/// body(i, v) for the thread's packets of a vector: the one at element i is of the
/// thread's lanes from v on.
template <int kElements, class Body>
__device__ void for_packets(int64_t dim, const Body& body) {
  const int64_t first = int64_t{threadIdx.x % kWarp} * kElements;
#pragma unroll 2
  for (int64_t i = first; i < dim; i += kWarpLanes) {
#pragma unroll
    for (int v = 0; v < kOwnLanes; v += kElements) {
      if (v == 0 || i + v * kWarp < dim) body(i + v * kWarp, v);
    }
  }
}

template <class X, class Y>
struct Dot16Norm {
  Heads<Y> y;
  Heads<float> h;  ///< h, delta: without memory where there is no residual
  Heads<const X> x;
  Heads<const float> delta;
  float* rstd;
  const float* weight;
  float eps;
};

/// The sum of two loads: of one element where kResidual is not set.
template <class X, class Y, bool kResidual, int kElements>
__global__ void __launch_bounds__(kNormWarps* kWarp) dot16_norm_kernel(Dot16Norm<X, Y> op) {
  using Elements = Packet<kElements>;
  const int64_t index = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / kWarp;
  if (index >= op.x.tokens * op.x.heads) return;
  const int64_t dim = op.x.head_dim;
  // In 32 bits: a division of more takes registers.
  const uint32_t heads = static_cast<uint32_t>(op.x.heads);
  const uint32_t token = static_cast<uint32_t>(index) / heads,
                 head = static_cast<uint32_t>(index) % heads;
  const X* const x = vector_at(op.x, token, head);
  const float* const delta = vector_at(op.delta, token, head);
  const auto load = [&](int64_t i) {
    Elements values = load_packet<kElements>(x + i);
    if constexpr (kResidual) {
      const Elements more = load_packet<kElements>(delta + i);
#pragma unroll
      for (int e = 0; e < kElements; ++e) values.at[e] = __fadd_rn(values.at[e], more.at[e]);
    }
    return values;
  };
  float own[kOwnLanes] = {};
  for_packets<kElements>(dim, [&](int64_t i, int v) {
    const Elements values = load(i);
#pragma unroll
    for (int e = 0; e < kElements; ++e)
      own[v + e] = __fmaf_rn(values.at[e], values.at[e], own[v + e]);
  });
  const float mean = __fdiv_rn(sum256<kElements>(own), static_cast<float>(dim));
  const float rstd = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, op.eps)));
  if (op.rstd != nullptr && threadIdx.x % kWarp == 0) op.rstd[index] = rstd;
  Y* const y = vector_at(op.y, token, head);
  float* const h = vector_at(op.h, token, head);
  // An element is read and written by one thread, so h or y may be x.
  for_packets<kElements>(dim, [&](int64_t i, int /*v*/) {
    Elements values = load(i);
    if constexpr (kResidual) store_packet(h + i, values);
    const Elements weight = load_packet<kElements>(op.weight + i);
#pragma unroll
    for (int e = 0; e < kElements; ++e)
      values.at[e] = __fmul_rn(__fmul_rn(values.at[e], rstd), weight.at[e]);
    store_packet(y + i, values);
  });
}

template <class T, int kElements>
__global__ void __launch_bounds__(kNormWarps* kWarp) dot16_gradient_kernel(NormGradients<T> op) {
  using Elements = Packet<kElements>;
  const int64_t index = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / kWarp;
  if (index >= op.x.tokens * op.x.heads) return;
  const int64_t dim = op.x.head_dim;
  // In 32 bits: a division of more takes registers.
  const uint32_t heads = static_cast<uint32_t>(op.x.heads);
  const uint32_t token = static_cast<uint32_t>(index) / heads,
                 head = static_cast<uint32_t>(index) % heads;
  const T* const x = vector_at(op.x, token, head);
  const T* const dy = vector_at(op.dy, token, head);
  const auto load_g = [&](int64_t i) {
    Elements g = load_packet<kElements>(dy + i);
    const Elements weight = load_packet<kElements>(op.weight + i);
#pragma unroll
    for (int e = 0; e < kElements; ++e) g.at[e] = __fmul_rn(g.at[e], weight.at[e]);
    return g;
  };
  float own[kOwnLanes] = {};
  for_packets<kElements>(dim, [&](int64_t i, int v) {
    const Elements g = load_g(i), values = load_packet<kElements>(x + i);
#pragma unroll
    for (int e = 0; e < kElements; ++e) own[v + e] = __fmaf_rn(g.at[e], values.at[e], own[v + e]);
  });
  const float sum = sum256<kElements>(own);
  const float rstd = op.rstd[index];
  const float along = __fmul_rn(__fmul_rn(__fdiv_rn(sum, static_cast<float>(dim)), rstd), rstd);
  T* const dx = vector_at(op.dx, token, head);
  Bf16* const rounded = vector_at(op.dx_rounded, token, head);
  for_packets<kElements>(dim, [&](int64_t i, int /*v*/) {
    const Elements g = load_g(i), values = load_packet<kElements>(x + i);
    Elements d;
    if (op.accumulate) d = load_packet<kElements>(dx + i);
#pragma unroll
    for (int e = 0; e < kElements; ++e) {
      const float across = __fmaf_rn(-along, values.at[e], g.at[e]);
      d.at[e] = op.accumulate ? __fmaf_rn(across, rstd, d.at[e]) : __fmul_rn(across, rstd);
    }
    store_packet(dx + i, d);
    if (op.dx_rounded.data != nullptr) store_packet(rounded + i, d);
  });
}

inline unsigned norm_blocks(int64_t vectors) {
  return static_cast<unsigned>(ceil_div(vectors, kNormWarps));
}

template <class X, class Y, bool kResidual>
void launch_dot16(const Context& ctx, const Dot16Norm<X, Y>& norm, bool packets) {
  const int64_t vectors = norm.x.tokens * norm.x.heads;
  if (vectors == 0) return;
  constexpr int kBlock = kNormWarps * kWarp;
  if (packets) {
    dot16_norm_kernel<X, Y, kResidual, kPacket>
        <<<norm_blocks(vectors), kBlock, 0, stream_of(ctx)>>>(norm);
  } else {
    dot16_norm_kernel<X, Y, kResidual, 1>
        <<<norm_blocks(vectors), kBlock, 0, stream_of(ctx)>>>(norm);
  }
  check_launch(kResidual ? "rmsnorm_residual_forward" : "rmsnorm_forward");
}

template <class X, class Y>
void forward_dot16(const Context& ctx, const RmsnormForward& op) {
  const Dot16Norm<X, Y> norm{.y = as_heads(op.y.as<Y>(), op.heads),
                             .x = as_heads(op.x.as<const X>(), op.heads),
                             .rstd = op.rstd.data,
                             .weight = op.weight.data,
                             .eps = op.eps};
  const int64_t dim = norm.x.head_dim;
  launch_dot16<X, Y, false>(
      ctx, norm,
      in_packets(op.x, dim) && in_packets(op.y, dim) && is_aligned_to_16(op.weight.data));
}

template <class Y>
void residual_forward_dot16(const Context& ctx, const RmsnormResidualForward& op) {
  const Dot16Norm<float, Y> norm{.y = as_heads(op.y.as<Y>(), 1),
                                 .h = as_heads(op.h, 1),
                                 .x = as_heads(op.x, 1),
                                 .delta = as_heads(op.delta, 1),
                                 .rstd = op.rstd.data,
                                 .weight = op.weight.data,
                                 .eps = op.eps};
  const int64_t dim = norm.x.head_dim;
  launch_dot16<float, Y, true>(ctx, norm,
                               in_packets(op.x, dim) && in_packets(op.y, dim) &&
                                   in_packets(op.h, dim) && in_packets(op.delta, dim) &&
                                   is_aligned_to_16(op.weight.data));
}

/// dx, which may overwrite dy.
template <class T>
void launch_gradient_dot16(const Context& ctx, const NormGradients<T>& norm,
                           const RmsnormBackward& op) {
  constexpr int kBlock = kNormWarps * kWarp;
  const int64_t dim = norm.x.head_dim, vectors = norm.x.tokens * norm.x.heads;
  const bool packets = in_packets(op.x, dim) && in_packets(op.dy, dim) && in_packets(op.dx, dim) &&
                       (op.dx_rounded.data == nullptr || in_packets(op.dx_rounded, dim)) &&
                       is_aligned_to_16(op.weight.data);
  if (packets) {
    dot16_gradient_kernel<T, kPacket><<<norm_blocks(vectors), kBlock, 0, stream_of(ctx)>>>(norm);
  } else {
    dot16_gradient_kernel<T, 1><<<norm_blocks(vectors), kBlock, 0, stream_of(ctx)>>>(norm);
  }
}

}  // namespace orrery::kernels::cuda
