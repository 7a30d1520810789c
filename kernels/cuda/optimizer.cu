#include "kernels/cuda/optimizer.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

struct AdamwElement {
  float* __restrict__ w;
  float* __restrict__ m;
  float* __restrict__ v;
  const float* __restrict__ grad;
  AdamWConstants c;
  __device__ void operator()(int64_t i) const {
    const float g = __fmul_rn(grad[i], c.grad_scale);
    const float new_m = __fmaf_rn(c.beta1, m[i], __fmul_rn(c.one_minus_beta1, g));
    const float new_v = __fmaf_rn(c.beta2, v[i], __fmul_rn(__fmul_rn(c.one_minus_beta2, g), g));
    const float update = __fdiv_rn(new_m, __fmaf_rn(__fsqrt_rn(new_v), c.inv_sqrt_bias2, c.eps));
    const float old_w = w[i];
    m[i] = new_m;
    v[i] = new_v;
    w[i] = __fsub_rn(old_w, __fmaf_rn(c.step_size, update, __fmul_rn(c.decay, old_w)));
  }
};

constexpr int kNormThreads = 64;  // of a block: four chunks

__global__ void __launch_bounds__(kNormThreads)
    sum_squares_kernel(float* sums, int64_t chunks, const float* __restrict__ x, int64_t size) {
  const int64_t chunk = (int64_t{blockIdx.x} * kNormThreads + threadIdx.x) / kSumLanes;
  const int64_t first = chunk * kNormChunk;
  const int64_t count = chunk < chunks ? min(int64_t{kNormChunk}, size - first) : 0;
  const int lane = threadIdx.x % kSumLanes;
  const float* const from = x + first;
  const float acc = lane_chain<32>(
      lane, count, [&](int64_t i) { return from[i]; },
      [](float value, float sum) { return __fmaf_rn(value, value, sum); });
  const float sum = sum16(acc);
  if (lane == 0 && chunk < chunks) sums[chunk] = sum;
}

}  // namespace

void adamw_step(const Context& ctx, const AdamwStep& op) {
  for_each_element(
      ctx, "adamw_step", op.w.size,
      AdamwElement{op.w.data, op.m.data, op.v.data, op.grad.data, adamw_constants(op)});
}

void sum_squares_chunks(const Context& ctx, const SumSquaresChunks& op) {
  if (op.sums.size == 0) return;
  const int64_t blocks = ceil_div(op.sums.size * kSumLanes, kNormThreads);
  sum_squares_kernel<<<static_cast<unsigned>(blocks), kNormThreads, 0, stream_of(ctx)>>>(
      op.sums.data, op.sums.size, op.x.data, op.x.size);
  check_launch("sum_squares_chunks");
}

}  // namespace orrery::kernels::cuda
