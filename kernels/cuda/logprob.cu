// A block takes a row of logits. All its threads compute weights, a piece of the row at
// a time; the two halves of one warp are the lanes of the two sums. The class
// dot16-rz25 has sums of its own: logprob_dot16.cuh.
#include "kernels/cuda/logprob.h"

#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/logprob_dot16.cuh"
#include "kernels/cuda/logprob_row.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = kLogprobThreads;
constexpr int kPiece = 2048;  // elements between two meetings of the threads

__device__ float row_max(const float* logits, int64_t vocab, float inv, float* shared) {
  float most = kMinusInfinity;
#pragma unroll 4
  for (int64_t j = threadIdx.x; j < vocab; j += kThreads)
    most = larger(__fmul_rn(logits[j], inv), most);
  for (int step = kWarp / 2; step > 0; step /= 2)
    most = larger(__shfl_xor_sync(kAllThreads, most, step), most);
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = most;
  __syncthreads();
  most = shared[0];
  for (int w = 1; w < kThreads / kWarp; ++w) most = larger(shared[w], most);
  return most;
}

__global__ void __launch_bounds__(kThreads) logprob_kernel(LogprobRows op) {
  __shared__ float weights[2][kPiece], distances[2][kPiece];
  __shared__ float maxima[kThreads / kWarp];
  const int64_t row = blockIdx.x, vocab = op.logits.cols;
  const float* const logits = op.logits.data + row * op.logits.stride;
  const float inv = op.inv_temperature[row];
  const float m = row_max(logits, vocab, inv, maxima);
  const int thread = threadIdx.x;
  const bool second = thread >= kSumLanes;  // of the two sums
  float acc = 0.0f;
  int now = 0;
  for (int64_t begin = 0; begin < vocab; begin += kPiece, now ^= 1) {
    const int count = static_cast<int>(min(int64_t{kPiece}, vocab - begin));
#pragma unroll 4
    for (int j = thread; j < count; j += kThreads) {
      const float below_max = __fsub_rn(__fmul_rn(logits[begin + j], inv), m);
      weights[now][j] = exp_f32(below_max);
      distances[now][j] = finite_below(below_max);
    }
    // After this meeting the others fill the other half while the first warp adds.
    __syncthreads();
    if (thread < kWarp) {
      const int lane = thread % kSumLanes;
      // fma(p, 1, sum) is the rounded sum.
#pragma unroll 8
      for (int j = lane; j < count; j += kSumLanes)
        acc = __fmaf_rn(weights[now][j], second ? distances[now][j] : 1.0f, acc);
    }
  }
  if (thread >= kWarp) return;
  const float total = sum16(acc);
  const float s = __shfl_sync(kAllThreads, total, 0);
  const float weighted = __shfl_sync(kAllThreads, total, kSumLanes);
  if (thread == 0) write_row(op, row, m, s, weighted);
}

template <class T>
struct RowGradient {
  Mat<T> dlogits;  ///< may be the logits: an element is one thread's
  Mat<const float> logits;
  const int32_t* targets;
  const float *max, *log_sum, *entropies, *dlogp, *dentropy, *inv_temperature;
};

constexpr int kGradientElements = 4 * kThreads;

template <class T>
__global__ void __launch_bounds__(kThreads) logprob_backward_kernel(RowGradient<T> op) {
  const int64_t row = blockIdx.y, vocab = op.logits.cols;
  const float* const logits = op.logits.data + row * op.logits.stride;
  T* const dlogits = op.dlogits.data + row * op.dlogits.stride;
  const float inv = op.inv_temperature[row], m = op.max[row], log_sum = op.log_sum[row];
  const float dlogp = op.dlogp[row];
  const float dentropy = op.dentropy == nullptr ? 0.0f : op.dentropy[row];
  const float entropy = op.dentropy == nullptr ? 0.0f : op.entropies[row];
  const int64_t target = op.targets[row];
  const bool masked = dlogp == 0.0f && dentropy == 0.0f;
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const int64_t j = int64_t{blockIdx.x} * kGradientElements + e * kThreads + threadIdx.x;
    if (j >= vocab) return;
    if (masked) {
      store_element(dlogits + j, 0.0f);
      continue;
    }
    const float below_max = __fsub_rn(__fmul_rn(logits[j], inv), m);
    const float p = exp_f32(__fsub_rn(below_max, log_sum));
    const float spread = __fadd_rn(__fsub_rn(finite_below(below_max), log_sum), entropy);
    const float q = __fmul_rn(__fmul_rn(dentropy, p), spread);
    const float bracket = __fsub_rn(j == target ? 1.0f : 0.0f, p);
    store_element(dlogits + j, __fmul_rn(__fmaf_rn(dlogp, bracket, -q), inv));
  }
}

template <class T>
void backward(const Context& ctx, const LogprobBackward& op) {
  const dim3 grid(static_cast<unsigned>(ceil_div(op.logits.cols, kGradientElements)),
                  static_cast<unsigned>(op.logits.rows));
  logprob_backward_kernel<T><<<grid, kThreads, 0, stream_of(ctx)>>>(
      RowGradient<T>{.dlogits = op.dlogits.as<T>(),
                     .logits = op.logits,
                     .targets = op.targets.data,
                     .max = op.max.data,
                     .log_sum = op.log_sum.data,
                     .entropies = op.entropies.data,
                     .dlogp = op.dlogp.data,
                     .dentropy = op.dentropy.empty() ? nullptr : op.dentropy.data,
                     .inv_temperature = op.inv_temperature.data});
  check_launch("logprob_backward");
}

}  // namespace

void logprob_forward(const Context& ctx, const LogprobForward& op) {
  if (op.logits.rows == 0) return;
  const LogprobRows rows{.logits = op.logits,
                         .targets = op.targets.data,
                         .inv_temperature = op.inv_temperature.data,
                         .logprobs = op.logprobs.data,
                         .entropies = op.entropies.empty() ? nullptr : op.entropies.data,
                         .max = op.max.empty() ? nullptr : op.max.data,
                         .log_sum = op.log_sum.empty() ? nullptr : op.log_sum.data};
  if (op.numerics == NumericsClass::kDot16) return launch_dot16_logprob(ctx, rows);
  logprob_kernel<<<static_cast<unsigned>(op.logits.rows), kThreads, 0, stream_of(ctx)>>>(rows);
  check_launch("logprob_forward");
}

void logprob_backward(const Context& ctx, const LogprobBackward& op) {
  if (op.logits.rows == 0) return;
  op.dlogits.dtype == DType::kBF16 ? backward<Bf16>(ctx, op) : backward<float>(ctx, op);
}

}  // namespace orrery::kernels::cuda
