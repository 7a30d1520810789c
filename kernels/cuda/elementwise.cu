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

constexpr int kMostLevels = 8;  // of a tree
constexpr int kMostParts = 1 << kMostLevels;

/// What a sum is of, as a kernel takes them: by value.
struct Parts {
  const float* at[kMostParts];
};

/// Error where a kernel cannot take so many.
Parts parts_of(const char* op, Span<const float* const> from) {
  if (from.size() > kMostParts)
    fail("{}: {} parts; on CUDA at most {}", op, from.size(), kMostParts);
  Parts parts;
  std::copy(from.begin(), from.end(), parts.at);
  return parts;
}

/// out may be one of the parts, as in tree_kernel.
__global__ void __launch_bounds__(kElementThreads)
    nested_kernel(float* out, int64_t size, const __grid_constant__ Parts parts, int count) {
  const int64_t i = int64_t{blockIdx.x} * kElementThreads + threadIdx.x;
  if (i >= size) return;
  float sum = parts.at[count - 1][i];
#pragma unroll 4
  for (int p = count - 2; p >= 0; --p) sum = __fadd_rn(parts.at[p][i], sum);
  out[i] = sum;
}

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

void nested_sum(const Context& ctx, const NestedSum& op) {
  const Parts parts = parts_of("nested_sum", op.parts);
  if (op.out.size == 0) return;
  const int64_t blocks = ceil_div(op.out.size, kElementThreads);
  nested_kernel<<<static_cast<unsigned>(blocks), kElementThreads, 0, stream_of(ctx)>>>(
      op.out.data, op.out.size, parts, static_cast<int>(op.parts.size()));
  check_launch("nested_sum");
}

void tree_sum(const Context& ctx, const TreeSum& op) {
  const Parts parts = parts_of("tree_sum", op.parts);
  if (op.out.size > 0) launch_tree<1>(ctx, op, parts);
}

}  // namespace orrery::kernels::cuda
