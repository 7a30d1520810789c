#include "kernels/peak.h"

#include <algorithm>

#include "core/buffer.h"
#include "core/cuda_api.h"
#include "core/stream.h"
#include "core/timer.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"

namespace orrery::kernels {
namespace {

/// Of the device's work that `body` queues.
template <class Body>
double time_of(const Context& ctx, Body&& body) {
  Stream& stream = ctx.stream();
  const Event begin = stream.record_time();
  body();
  const Event end = stream.record_time();
  stream.synchronize();
  return std::chrono::duration<double>(stream.between(begin, end)).count();
}

}  // namespace

double measure_gemm_peak(const Context& ctx, DType dtype, double seconds) {
  constexpr int64_t kRows = 1792, kOut = 1024, kIn = 768;
  const Buffer x = Buffer::zeroed(ctx.device, dtype_bytes(dtype) * kRows * kIn);
  const Buffer w = Buffer::zeroed(ctx.device, sizeof(float) * kOut * kIn);
  const Buffer y(ctx.device, sizeof(float) * kRows * kOut);
  const Buffer memory(ctx.device, packed_weight_bytes(ctx.device, dtype, kOut, kIn));
  const PackedWeight packed =
      pack_weight(ctx, {.weight = {static_cast<const float*>(w.data()), kOut, kIn},
                        .dtype = dtype,
                        .memory = memory.data()});
  const Mat<float> y_mat(static_cast<float*>(y.data()), kRows, kOut);
  const ConstActMat x_mat(x.data(), dtype, kRows, kIn, kIn);
  const Timer total;
  double best = 0;
  do {
    const double seconds_of =
        time_of(ctx, [&] { matmul_forward(ctx, {.y = y_mat, .x = x_mat, .weight = packed}); });
    best = std::max(best, 2.0 * kRows * kOut * kIn / seconds_of);
  } while (total.seconds() < seconds);
  return best;
}

double arithmetic_peak(const Context& ctx, DType dtype, int turns) {
  if constexpr (kCudaBuilt) {
    if (ctx.device.type == DeviceType::kCuda)
      return dtype == DType::kBF16 ? cuda_api::bf16_peak(ctx.device)
                                   : cuda_api::f32_peak(ctx.device);
  }
  return measure_product_peak(ctx.threads, dtype, turns);
}

double measure_memory_bandwidth(const Context& ctx, double seconds) {
  constexpr size_t kBytes = size_t{256} << 20;  // more than caches hold
  const Buffer x(ctx.device, kBytes), y(ctx.device, kBytes);
  // Written once, so that x has pages of its own and not the zero page.
  const Vec<float> from = x.vec<float>(), to = y.vec<float>();
  fill(ctx, {.y = from});
  fill(ctx, {.y = to});
  const float* const parts[] = {to.data, from.data};
  const Timer total;
  double best = 0;
  do {
    const double seconds_of = time_of(ctx, [&] { nested_sum(ctx, {.out = to, .parts = parts}); });
    best = std::max(best, 3.0 * kBytes / seconds_of);
  } while (total.seconds() < seconds);
  return best;
}

}  // namespace orrery::kernels
