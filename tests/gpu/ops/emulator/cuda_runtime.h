// Stands in for CUDA's header where .cu files are compiled for the host (host_source.py
// rewrites their launches). A kernel's threads are fibers that take turns at barriers,
// in rising order and in falling order by turns; blocks run one after the other; device
// memory is host memory. It knows what the kernels here use and no more.
//
// What it sees: the bits that a kernel computes, on the IEEE arithmetic of the host;
// its indices, and with SANITIZE=-fsanitize=address accesses outside the arrays;
// barriers that not all running threads of a block, or not all 32 of a warp, reach, as
// a deadlock; many a missing barrier, by the two orders of the threads.
//
// What it does not see: races that no order of whole turns shows; a missing wait for an
// asynchronous copy, which is done at once here; masks of threads that __syncwarp() and
// shuffles are given; addresses that are not aligned as their vector is; shared memory
// that nobody wrote, or more of it, of registers or of threads than a device has; host
// memory that a kernel reads; what nvcc makes of the arithmetic; and times, which are
// all printed as 1 ms.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __grid_constant__
#define __forceinline__ inline

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }

inline dim3 threadIdx, blockIdx, gridDim, blockDim;

namespace simt {

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done = false;
  unsigned index = 0;
};
inline ucontext_t scheduler;
inline std::vector<Fiber> fibers;
inline Fiber* current = nullptr;
inline const std::function<void()>* body = nullptr;
inline unsigned alive = 0, arrived = 0;
inline uint64_t generation = 0;
inline std::vector<uint64_t> warp_arrivals;
inline uint64_t slots[1024];
alignas(128) inline char dynamic_shared[232448];

inline void yield() { swapcontext(&current->context, &scheduler); }
inline void entry() {
  (*body)();
  current->done = true;
  --alive;
  if (arrived > 0 && arrived == alive) arrived = 0, ++generation;
  swapcontext(&current->context, &scheduler);
}
inline void sync_block() {
  const uint64_t mine = generation;
  if (++arrived == alive) {
    arrived = 0;
    ++generation;
  }
  while (generation == mine) yield();
}
/// Waits for all 32 threads of the warp. All of them must call it.
inline void sync_warp() {
  uint64_t& count = warp_arrivals[current->index / 32];
  const uint64_t target = (count / 32 + 1) * 32;
  ++count;
  while (count < target) yield();
}
template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  std::memcpy(&slots[current->index], &value, sizeof(T));
  sync_warp();
  T result;
  std::memcpy(&result, &slots[current->index / 32 * 32 + from % 32], sizeof(T));
  sync_warp();
  return result;
}

template <class Kernel>
void launch(dim3 grid, dim3 block, size_t, void*, const Kernel& kernel) {
  const std::function<void()> function = kernel;
  body = &function;
  const unsigned threads = block.x;
  if (fibers.size() < threads) fibers.resize(threads);
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        alive = threads;
        arrived = 0;
        warp_arrivals.assign((threads + 31) / 32, 0);
        for (unsigned t = 0; t < threads; ++t) {
          Fiber& f = fibers[t];
          if (f.stack.empty()) f.stack.resize(256 << 10);
          f.done = false;
          f.index = t;
          getcontext(&f.context);
          f.context.uc_stack.ss_sp = f.stack.data();
          f.context.uc_stack.ss_size = f.stack.size();
          f.context.uc_link = &scheduler;
          makecontext(&f.context, entry, 0);
        }
        unsigned turns = 0;
        while (alive > 0) {
          for (unsigned i = 0; i < threads; ++i) {
            // Another order of the threads in each turn.
            Fiber& f = fibers[turns % 2 == 0 ? i : threads - 1 - i];
            if (f.done) continue;
            current = &f;
            threadIdx = dim3(f.index);
            swapcontext(&scheduler, &f.context);
          }
          if (++turns > 50'000'000) std::abort();  // a deadlock
        }
      }
    }
  }
}

inline unsigned lane() { return current->index % 32; }

}  // namespace simt

inline void __syncthreads() { simt::sync_block(); }
inline int __syncthreads_or(int predicate) {
  static bool any;
  simt::sync_block();
  any = false;
  simt::sync_block();
  if (predicate) any = true;
  simt::sync_block();
  return any;
}
inline void __syncwarp(unsigned = 0xffffffffu) { simt::sync_warp(); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return simt::exchange(value, simt::lane() ^ static_cast<unsigned>(mask));
}
template <class T>
T __shfl_sync(unsigned, T value, int from) {
  return simt::exchange(value, static_cast<unsigned>(from));
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned delta) {
  return simt::exchange(value, simt::lane() < delta ? simt::lane() : simt::lane() - delta);
}
inline unsigned __ballot_sync(unsigned, int predicate) {
  unsigned result = 0;
  const unsigned base = simt::current->index / 32 * 32;
  simt::slots[simt::current->index] = predicate != 0;
  simt::sync_warp();
  for (unsigned i = 0; i < 32; ++i)
    result |= static_cast<unsigned>(simt::slots[base + i] != 0) << i;
  simt::sync_warp();
  return result;
}
inline int __any_sync(unsigned m, int predicate) { return __ballot_sync(m, predicate) != 0; }
inline int __all_sync(unsigned m, int predicate) { return __ballot_sync(m, predicate) == ~0u; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline unsigned __float_as_uint(float x) {
  unsigned u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float __uint_as_float(unsigned u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}
template <class T>
T atomicAdd(T* to, T value) {
  const T old = *to;
  *to += value;
  return old;
}
template <class T>
T atomicMax(T* to, T value) {
  const T old = *to;
  *to = std::max(old, value);
  return old;
}
template <class T>
T atomicMin(T* to, T value) {
  const T old = *to;
  *to = std::min(old, value);
  return old;
}
using std::max;
using std::min;

using cudaStream_t = void*;
using cudaEvent_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
struct cudaDeviceProp {
  char name[16] = "emulator";
  int major = 9, minor = 0, multiProcessorCount = 1;
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
/// Exactly the bytes that were asked for would be better: the driver rounds up.
template <class T>
cudaError_t cudaMalloc(T** data, size_t bytes) {
  *data = static_cast<T*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyToSymbolAsync(T& to, const void* from, size_t bytes, size_t, cudaMemcpyKind,
                                    cudaStream_t) {
  std::memcpy(&to, from, bytes);
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const T& from, size_t bytes, size_t, cudaMemcpyKind,
                                      cudaStream_t) {
  std::memcpy(to, &from, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  static char any;
  *stream = &any;
  return cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* n) {
  *n = 1;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrClockRate };
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int) { return cudaSuccess; }
inline cudaError_t cudaDriverGetVersion(int*) { return cudaSuccess; }
inline cudaError_t cudaEventCreate(cudaEvent_t*) { return cudaSuccess; }
inline constexpr unsigned cudaEventDefault = 0, cudaEventDisableTiming = 2;
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t = nullptr) { return cudaSuccess; }
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  *ms = 1;
  return cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) {
  return cudaSuccess;
}
