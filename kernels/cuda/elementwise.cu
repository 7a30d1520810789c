#include "kernels/cuda/elementwise.h"

#include <bit>

#include "kernels/cuda/launch.cuh"

namespace orrery::kernels::cuda {
namespace {

struct FillElement {
  float* y;
  float value;
  __device__ void operator()(int64_t i) const { y[i] = value; }
};

struct AddElement {
  float* __restrict__ y;
  const float* __restrict__ x;
  __device__ void operator()(int64_t i) const { y[i] = __fadd_rn(y[i], x[i]); }
};

constexpr int kMostLevels = 8;

/// Leaves of a tree, as a kernel takes them: by value.
struct Parts {
  const float* at[1 << kMostLevels];
};

/// Element i of the sum of 2^kLevels parts from `first` on.
template <int kLevels>
__device__ float tree_element(const Parts& parts, int first, int64_t i) {
  if constexpr (kLevels == 0) {
    return parts.at[first][i];
  } else {
    const float left = tree_element<kLevels - 1>(parts, first, i);
    return __fadd_rn(left, tree_element<kLevels - 1>(parts, first + (1 << (kLevels - 1)), i));
  }
}

/// out may be one of the parts: a thread has read element i of all of them before it
/// writes it.
template <int kLevels>
__global__ void __launch_bounds__(kElementThreads)
    tree_kernel(float* out, int64_t count, const __grid_constant__ Parts parts) {
  const int64_t i = int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i < count) out[i] = tree_element<kLevels>(parts, 0, i);
}

template <int kLevels>
void launch_tree(const Context& ctx, const TreeSum& op, const Parts& parts) {
  if (op.parts.size() != int64_t{1} << kLevels) {
    if constexpr (kLevels < kMostLevels) launch_tree<kLevels + 1>(ctx, op, parts);
    return;
  }
  const int64_t blocks = ceil_div(op.out.size, kElementThreads);
  tree_kernel<kLevels><<<static_cast<unsigned>(blocks), kElementThreads, 0, stream_of(ctx)>>>(
      op.out.data, op.out.size, parts);
  check_launch("tree_sum");
}

}  // namespace

void fill(const Context& ctx, const Fill& op) {
  for_each_element(ctx, "fill", op.y.size, FillElement{op.y.data, op.value});
}

void accumulate(const Context& ctx, const Accumulate& op) {
  for_each_element(ctx, "accumulate", op.y.size, AddElement{op.y.data, op.x.data});
}

void tree_sum(const Context& ctx, const TreeSum& op) {
  constexpr int64_t kMost = int64_t{1} << kMostLevels;
  if (op.parts.size() > kMost)
    fail("tree_sum: {} parts; on CUDA at most {}", op.parts.size(), kMost);
  if (op.out.size == 0) return;
  Parts parts;
  std::copy(op.parts.begin(), op.parts.end(), parts.at);
  launch_tree<1>(ctx, op, parts);
}

}  // namespace orrery::kernels::cuda
