// Functions of plain values that the compiler of a GPU reads, too.
#pragma once

/// Stands before an inline function that runs on the CPU and inside kernels of a GPU.
/// Such a function uses plain values and functions of its own kind: nothing of std::,
/// no allocation, no exception.
#ifdef __CUDACC__
#define ORRERY_DEVICE_FN __host__ __device__
#else
#define ORRERY_DEVICE_FN
#endif
