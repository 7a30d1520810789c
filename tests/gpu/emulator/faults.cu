#include "tests/gpu/emulator/faults.h"

#include "kernels/cuda/async_copy.cuh"

namespace orrery::emulator_faults {
namespace {

constexpr int kMost = 256;

__global__ void reverse_kernel(float* to, const float* from, bool barrier) {
  __shared__ float values[kMost];
  const int i = static_cast<int>(threadIdx.x), last = static_cast<int>(blockDim.x) - 1;
  values[i] = from[i];
  if (barrier) __syncthreads();
  to[i] = values[last - i];
}

__global__ void reverse_warp_kernel(float* to, const float* from, bool barrier) {
  __shared__ float values[32];
  const int i = static_cast<int>(threadIdx.x);
  values[i] = from[i];
  if (barrier) __syncwarp();
  const float own = __shfl_sync(0xffffffffu, values[31 - i], 31 - i);
  to[i] = __shfl_xor_sync(0xffffffffu, own, 31);
}

__global__ void twice_kernel(float* to, const float* from, int count, bool guarded) {
  const int i = 4 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  for (int e = i; e < i + 4; ++e) {
    if (i >= count || (guarded && e >= count)) continue;
    const float value = 2 * from[e];
    if (e < count) to[e] = value;
  }
}

__global__ void copy_kernel(float* to, const float* from, bool own, bool wait) {
  __shared__ float values[kMost];
  const int i = static_cast<int>(threadIdx.x), last = static_cast<int>(blockDim.x) - 1;
  kernels::cuda::copy_async<4>(&values[i], &from[i]);
  kernels::cuda::end_copy_group();
  if (wait) kernels::cuda::wait_for_groups<0>();
  __syncthreads();
  to[i] = values[own ? i : last - i];
}

__global__ void count_kernel(unsigned* total, bool atomic) {
  if (atomic) {
    atomicAdd(total, 1u);
  } else {
    *total += 1;
  }
}

__global__ void sum_kernel(float* to, int written) {
  __shared__ float values[32];
  const int i = static_cast<int>(threadIdx.x);
  if (i < written) values[i] = 1;
  __syncthreads();
  if (i != 0) return;
  float sum = 0;
  for (int j = 0; j < 32; ++j) sum += values[j];
  *to = sum;
}

__global__ void write_kernel(int index) {
  __shared__ float values[32];
  values[index] = 1;
}

__global__ void page_kernel(float* to, const float* page, int length, bool skip) {
  float sum = 0;
  for (int i = 0; i < (skip ? length : 32); ++i)
    sum = __fmaf_rn(i < length ? 1.0f : 0.0f, page[i], sum);
  *to = sum;
}

__global__ void quad_kernel(float* to, const float* from) {
  const float4 quad = *reinterpret_cast<const float4*>(from);
  *to = quad.x + quad.w;
}

__global__ void barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

__global__ void empty_kernel() {}

}  // namespace

void reverse(float* to, const float* from, int threads, Fault barrier, cudaStream_t stream) {
  reverse_kernel<<<1, threads, 0, stream>>>(to, from, barrier == Fault::kNone);
}
void reverse_warp(float* to, const float* from, Fault barrier, cudaStream_t stream) {
  reverse_warp_kernel<<<1, 32, 0, stream>>>(to, from, barrier == Fault::kNone);
}
void twice(float* to, const float* from, int count, Fault tail, cudaStream_t stream) {
  twice_kernel<<<(count + 127) / 128, 32, 0, stream>>>(to, from, count, tail == Fault::kNone);
}
void copy_through(float* to, const float* from, bool own, Fault wait, cudaStream_t stream) {
  copy_kernel<<<1, 64, 0, stream>>>(to, from, own, wait == Fault::kNone);
}
void count_blocks(unsigned* total, int blocks, Fault atomic, cudaStream_t stream) {
  count_kernel<<<blocks, 1, 0, stream>>>(total, atomic == Fault::kNone);
}
void sum_shared(float* to, Fault fill, cudaStream_t stream) {
  sum_kernel<<<1, 32, 0, stream>>>(to, fill == Fault::kNone ? 32 : 16);
}
void write_shared(int index, cudaStream_t stream) { write_kernel<<<1, 1, 0, stream>>>(index); }
void add_page(float* to, const float* page, int length, Fault skip, cudaStream_t stream) {
  page_kernel<<<1, 1, 0, stream>>>(to, page, length, skip == Fault::kNone);
}
void load_quad(float* to, const float* from, cudaStream_t stream) {
  quad_kernel<<<1, 1, 0, stream>>>(to, from);
}
void part_at_barrier(cudaStream_t stream) { barrier_kernel<<<1, 64, 0, stream>>>(); }
void launch_with(int threads, int bytes, bool ask, cudaStream_t stream) {
  if (ask) cudaFuncSetAttribute(empty_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  empty_kernel<<<1, threads, static_cast<size_t>(bytes), stream>>>();
}

}  // namespace orrery::emulator_faults
