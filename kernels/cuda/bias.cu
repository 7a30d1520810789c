#include "kernels/cuda/bias.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/run_sums.cuh"

namespace orrery::kernels::cuda {
namespace {

constexpr int kThreads = 64, kAhead = 16;

/// sum + rows [begin, end) of a column, one after the other; the loads of kAhead rows
/// do not wait for the sum.
template <class T>
__device__ float add_rows(float sum, Mat<const T> dy, int64_t column, int64_t begin, int64_t end) {
  const T* at = dy.data + begin * dy.stride + column;
  int64_t r = begin;
  for (; r + kAhead <= end; r += kAhead) {
    float values[kAhead];
#pragma unroll
    for (int a = 0; a < kAhead; ++a, at += dy.stride) values[a] = load_element(at);
#pragma unroll
    for (int a = 0; a < kAhead; ++a) sum = __fadd_rn(sum, values[a]);
  }
  for (; r < end; ++r, at += dy.stride) sum = __fadd_rn(sum, load_element(at));
  return sum;
}

/// One sum over all rows: a thread a column.
template <class T>
__global__ void __launch_bounds__(kThreads)
    bias_kernel(float* db, Mat<const T> dy, bool accumulate) {
  const int64_t column = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (column >= dy.cols) return;
  db[column] = add_rows(accumulate ? db[column] : 0.0f, dy, column, 0, dy.rows);
}

template <class T>
__global__ void __launch_bounds__(kRunThreads)
    bias_runs_kernel(float* db, Mat<const T> dy, bool accumulate,
                     const __grid_constant__ RunRows runs) {
  add_runs<kRunColumns>(db, dy.cols, accumulate, runs,
                        [&](int64_t column, int64_t begin, int64_t end) {
                          return add_rows(0.0f, dy, column, begin, end);
                        });
}

template <class T>
void backward(const Context& ctx, const BiasBackward& op) {
  const auto dy = op.dy.as<const T>();
  const auto blocks = [&](int columns) {
    return static_cast<unsigned>(ceil_div(dy.cols, columns));
  };
  if (op.run_ends.empty()) {
    bias_kernel<T>
        <<<blocks(kThreads), kThreads, 0, stream_of(ctx)>>>(op.db.data, dy, op.accumulate);
    return check_launch("bias_backward");
  }
  bool accumulate = op.accumulate;
  for_runs(op.run_ends, [&](const RunRows& runs, int64_t first) {
    bias_runs_kernel<T><<<blocks(kRunColumns), kRunThreads, 0, stream_of(ctx)>>>(
        op.db.data, dy.row_range(first, dy.rows), accumulate, runs);
    check_launch("bias_backward");
    accumulate = true;
  });
}

}  // namespace

void bias_backward(const Context& ctx, const BiasBackward& op) {
  if (op.dy.cols == 0) return;
  op.dy.dtype == DType::kBF16 ? backward<Bf16>(ctx, op) : backward<float>(ctx, op);
}

}  // namespace orrery::kernels::cuda
