// What rewritten .cu files (host_source.py) call of the emulator: launches, the thread
// that runs, its barriers and shuffles, shared memory, atomics, asynchronous copies.
// Not of the kernels' own words: those stand in cuda_runtime.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
using cudaStream_t = struct CUstream_st*;

namespace simt {

// The compiler may keep what these return: a kernel's code is always one thread's.
[[gnu::const]] dim3 thread_index();
[[gnu::const]] dim3 block_index();
[[gnu::const]] dim3 block_size();
[[gnu::const]] dim3 grid_size();

struct Config {
  dim3 grid, block;
  size_t shared = 0;
  cudaStream_t stream = nullptr;
  Config(dim3 grid_, dim3 block_, size_t shared_ = 0, cudaStream_t stream_ = nullptr)
      : grid(grid_), block(block_), shared(shared_), stream(stream_) {}
};

/// A launch with a copy of its arguments, `bytes` at `arguments`.
struct Launch {
  const char* kernel;
  const void* function;  ///< what cudaFuncSetAttribute knows it by; null: by nothing
  void* arguments;
  size_t bytes;
  void (*call)(const void* arguments);  ///< the kernel, in the thread that runs
  void (*destroy)(void* arguments);
};
/// Queues it, or leaves the error for cudaGetLastError().
void enqueue(const Config& config, const Launch& launch);

template <class Call, class... Args>
void launch(const Config& config, const char* kernel, const void* function, Call call,
            Args... args) {
  struct Closure {
    Call call;
    std::tuple<Args...> args;
  };
  enqueue(config, {.kernel = kernel,
                   .function = function,
                   .arguments = new Closure{call, {args...}},
                   .bytes = sizeof(Closure),
                   .call =
                       [](const void* from) {
                         const auto& closure = *static_cast<const Closure*>(from);
                         std::apply(closure.call, closure.args);
                       },
                   .destroy = [](void* from) { delete static_cast<Closure*>(from); }});
}

/// The block's memory for one __shared__ declaration, which `key` names.
void* shared_variable(const void* key, size_t bytes, size_t align);
template <class T>
T& shared() {
  static const char key = 0;
  return *static_cast<T*>(shared_variable(&key, sizeof(T), alignof(T)));
}
void* dynamic_shared();

void sync_block();
int sync_block_or(int predicate);
/// Warp-wide operations: all threads of the mask that have not ended call the same one.
void sync_warp(unsigned mask);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned from);
unsigned ballot(unsigned mask, bool predicate);
unsigned lane();

template <class T>
T exchange(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, bits, from);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}

/// cp.async: at once, or at the wait for it, as the seed has it. Of `bytes` the first
/// `there` are read, the others become zeros.
void copy_async(void* to, const void* from, size_t bytes, size_t there);
inline void copy_async(void* to, const void* from, size_t bytes) {
  copy_async(to, from, bytes, bytes);
}
void end_copy_group();
/// Waits for all groups of this thread but its last `later`; -1: for all its copies.
void wait_for_copies(int later);

/// Instructions of tensor cores, by whole warps, as kernels/cuda/tensor_core.cuh has
/// them: this lane's part. load_matrices is ldmatrix of 2 or 4 matrices; `row` is the
/// lane's row of a matrix, if it has one.
void mma_m16n8k16(float* d, const uint32_t* a, const uint32_t* b);
void load_matrices(uint32_t* to, const void* row, int matrices, bool transposed);

}  // namespace simt
