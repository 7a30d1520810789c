// Small kernels, each with a fault or without, for tests of the emulator.
#pragma once

#include <cuda_runtime.h>

namespace orrery::emulator_faults {

enum class Fault { kNone, kMissing };

/// to[i] = from[threads - 1 - i], through shared memory; kMissing: without the barrier.
void reverse(float* to, const float* from, int threads, Fault barrier, cudaStream_t stream);
/// The same by shuffles of whole warps; kMissing: shared memory between lanes, without
/// __syncwarp.
void reverse_warp(float* to, const float* from, Fault barrier, cudaStream_t stream);
/// to[i] = 2 from[i] for i < count; kMissing: the tail reads whole quads.
void twice(float* to, const float* from, int count, Fault tail, cudaStream_t stream);
/// Copies 64 floats through cp.async; each thread reads what itself fetched (`own`), or
/// another one; kMissing: without the wait.
void copy_through(float* to, const float* from, bool own, Fault wait, cudaStream_t stream);
/// All blocks add to one number; kMissing: without atomics.
void count_blocks(unsigned* total, int blocks, Fault atomic, cudaStream_t stream);
/// Adds up shared memory; kMissing: half of it was never written.
void sum_shared(float* to, Fault fill, cudaStream_t stream);
/// One thread writes element `index` of 32 in shared memory.
void write_shared(int index, cudaStream_t stream);
/// Adds up the first `length` of 32 values of a page of keys; kMissing: the rest of
/// them as well, with weight 0.
void add_page(float* to, const float* page, int length, Fault skip, cudaStream_t stream);
/// A float4 from an address that is aligned to 4.
void load_quad(float* to, const float* from, cudaStream_t stream);
/// Half of a warp waits at the block's barrier, the other half for the whole warp.
void part_at_barrier(cudaStream_t stream);
/// A block of `threads` with dynamic shared memory.
void launch_with(int threads, int bytes, bool ask, cudaStream_t stream);

}  // namespace orrery::emulator_faults
