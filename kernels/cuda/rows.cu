#include "kernels/cuda/rows.h"

#include <type_traits>

#include "core/dtype.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/lanes.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/run_sums.cuh"

namespace orrery::kernels::cuda {
namespace {

template <class T>
struct CopyElement {
  T* to;
  int64_t to_stride;
  const T* from;
  int64_t from_stride;
  int64_t cols;
  const int32_t* rows;  ///< or null: row i is a copy of row i
  __device__ void operator()(int64_t i) const {
    const int64_t row = i / cols, column = i % cols;
    const int64_t source = rows == nullptr ? row : rows[row];
    to[row * to_stride + column] = from[source * from_stride + column];
  }
};

/// Rows as units of T, each of `each` elements.
template <class T>
void copy_units(const Context& ctx, const char* name, const ActMat& to, const ConstActMat& from,
                const int32_t* rows, int64_t each) {
  for_each_element(
      ctx, name, to.size() / each,
      CopyElement<T>{static_cast<T*>(to.data), to.stride / each, static_cast<const T*>(from.data),
                     from.stride / each, to.cols / each, rows});
}

void copy(const Context& ctx, const char* name, const ActMat& to, const ConstActMat& from,
          const int32_t* rows) {
  if (dtype_bytes(to.dtype) != sizeof(uint16_t)) {
    copy_units<uint32_t>(ctx, name, to, from, rows, 1);
  } else if (in_packets(to, to.cols) && in_packets(from, to.cols)) {
    copy_units<uint4>(ctx, name, to, from, rows, kPacket);
  } else {
    copy_units<uint16_t>(ctx, name, to, from, rows, 1);
  }
}

template <int kElements>
struct RoundElements {
  Mat<Bf16> to;
  Mat<const float> from;
  __device__ void operator()(int64_t i) const {
    const int64_t first = i * kElements, row = first / to.cols, column = first % to.cols;
    store_packet(to.data + row * to.stride + column,
                 load_packet<kElements>(from.data + row * from.stride + column));
  }
};

template <int kElements>
void round_elements(const Context& ctx, const RoundRows& op) {
  for_each_element(ctx, "round_rows", op.to.size() / kElements,
                   RoundElements<kElements>{op.to.as<Bf16>(), op.from});
}

constexpr int kScatterThreads = 256;

/// All rows are one run, whose sum starts from what is there.
struct NoRuns {};

/// A block stands for a row of `from`. That of the first row with some target adds all
/// of the target's rows in order; the others leave. What makes the sum's order that of
/// the rows: candidates are looked at kScatterThreads at a time, rising, and those
/// found are added by rising number. With Runs = RunRows each run's sum starts from 0,
/// and is added to what is there when a row of a later run is found.
template <class Runs>
__global__ void __launch_bounds__(kScatterThreads)
    scatter_kernel(Mat<float> to, Mat<const float> from, const int32_t* __restrict__ rows,
                   const __grid_constant__ Runs runs) {
  constexpr bool kInRuns = std::is_same_v<Runs, RunRows>;
  __shared__ unsigned found[kScatterThreads / kWarp];
  const int64_t first = blockIdx.x;
  const int32_t target = rows[first];
  const int thread = threadIdx.x;
  bool earlier = false;
  for (int64_t i = thread; i < first; i += kScatterThreads) earlier |= rows[i] == target;
  if (__syncthreads_or(earlier)) return;
  constexpr int kColumns = 4;  // of a thread, kScatterThreads apart
  float* const sum = to.data + target * to.stride;
  for (int64_t base = 0; base < to.cols; base += kColumns * kScatterThreads) {
    float acc[kColumns] = {}, total[kColumns] = {};
    int64_t run_end = 0;  // of the run of the last row found
    int run = -1;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = base + c * kScatterThreads + thread;
      if (column < to.cols) (kInRuns ? total : acc)[c] = sum[column];
    }
    for (int64_t begin = first; begin < from.rows; begin += kScatterThreads) {
      const int64_t mine = begin + thread;
      const unsigned hits = __ballot_sync(kAllThreads, mine < from.rows && rows[mine] == target);
      if (thread % kWarp == 0) found[thread / kWarp] = hits;
      __syncthreads();
#pragma unroll
      for (int w = 0; w < kScatterThreads / kWarp; ++w) {
        for (unsigned left = found[w]; left != 0; left &= left - 1) {
          const int64_t row = begin + w * kWarp + __ffs(static_cast<int>(left)) - 1;
          const float* const source = from.data + row * from.stride;
          if constexpr (kInRuns) {
            if (row >= run_end) {
              // Before the first row found 0 is added, which changes no bit: no run's
              // sum is -0.
              while (row >= run_end) run_end = runs.ends[++run];
#pragma unroll
              for (int c = 0; c < kColumns; ++c) {
                total[c] = __fadd_rn(total[c], acc[c]);
                acc[c] = 0.0f;
              }
            }
          }
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            const int64_t column = base + c * kScatterThreads + thread;
            if (column < to.cols) acc[c] = __fadd_rn(acc[c], source[column]);
          }
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int64_t column = base + c * kScatterThreads + thread;
      if (column < to.cols) sum[column] = kInRuns ? __fadd_rn(total[c], acc[c]) : acc[c];
    }
  }
}

constexpr int kSpreadThreads = 64, kSpreadAhead = 16;

/// A thread walks a column from the last row to the first. A row comes from itself or
/// one before it, so rows of one batch may all be read before the first is written.
__global__ void __launch_bounds__(kSpreadThreads)
    spread_kernel(Mat<float> y, const int32_t* __restrict__ source) {
  const int64_t column = int64_t{blockIdx.x} * kSpreadThreads + threadIdx.x;
  if (column >= y.cols) return;
  float* const from = y.data + column;
  const int32_t base = source[0];
  for (int64_t end = y.rows; end > 0; end -= kSpreadAhead) {
    float values[kSpreadAhead];
#pragma unroll
    for (int a = 0; a < kSpreadAhead; ++a) {
      const int64_t i = end - 1 - a;
      if (i >= 0) values[a] = from[(source[i] - base) * y.stride];
    }
#pragma unroll
    for (int a = 0; a < kSpreadAhead; ++a) {
      const int64_t i = end - 1 - a;
      if (i >= 0) from[i * y.stride] = values[a];
    }
  }
}

}  // namespace

void copy_rows(const Context& ctx, const CopyRows& op) {
  copy(ctx, "copy_rows", op.to, op.from, nullptr);
}

void round_rows(const Context& ctx, const RoundRows& op) {
  const int64_t columns = op.to.cols;
  in_packets(op.to, columns) && in_packets(op.from, columns) ? round_elements<kPacket>(ctx, op)
                                                             : round_elements<1>(ctx, op);
}

void gather_rows(const Context& ctx, const GatherRows& op) {
  copy(ctx, "gather_rows", op.to, op.from, op.rows.data);
}

void scatter_add_rows(const Context& ctx, const ScatterAddRows& op) {
  if (op.from.size() == 0) return;
  scatter_kernel<<<static_cast<unsigned>(op.from.rows), kScatterThreads, 0, stream_of(ctx)>>>(
      op.to, op.from, op.rows.data, NoRuns{});
  check_launch("scatter_add_rows");
}

void scatter_add_runs(const Context& ctx, const char* name, const ScatterAddRows& op,
                      Span<const int64_t> run_ends) {
  if (op.from.size() == 0) return;
  for_runs(run_ends, [&](const RunRows& runs, int64_t first) {
    if (runs.count == 0) return;
    const int64_t rows = runs.ends[runs.count - 1];
    scatter_kernel<<<static_cast<unsigned>(rows), kScatterThreads, 0, stream_of(ctx)>>>(
        op.to, op.from.row_range(first, first + rows), op.rows.data + first, runs);
    check_launch(name);
  });
}

void spread_rows(const Context& ctx, const SpreadRows& op) {
  if (op.y.size() == 0) return;
  spread_kernel<<<static_cast<unsigned>(ceil_div(op.y.cols, kSpreadThreads)), kSpreadThreads, 0,
                  stream_of(ctx)>>>(op.y, op.source.data);
  check_launch("spread_rows");
}

}  // namespace orrery::kernels::cuda
