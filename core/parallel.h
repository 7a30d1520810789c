// Loop parallelism inside an op. Not for results that depend on the split: bodies write disjoint outputs.
#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cstdint>
#include <exception>

#include "core/context.h"

namespace orrery {

#ifndef _OPENMP  // the ThreadSanitizer build: loops run serially
inline int omp_in_parallel() { return 1; }
inline int omp_get_num_threads() { return 1; }
inline int omp_get_thread_num() { return 0; }
#endif

/// Calls body(begin, end) for contiguous parts of [0, count), at most ctx.threads at once. `grain`: the least
/// work worth a thread (items). An exception of any part is rethrown in the caller. Nested calls run
/// serially.
template <class Body>
void parallel_for(const Context& ctx, int64_t count, int64_t grain, Body&& body) {
  const int64_t wanted = std::min<int64_t>(ctx.threads, count / std::max<int64_t>(grain, 1));
  if (wanted <= 1 || omp_in_parallel()) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(static_cast <int>(wanted))
  {
    const int64_t parts = omp_get_num_threads();
    const int64_t part = omp_get_thread_num();
    try {
      const int64_t begin = count * part / parts;
      const int64_t end = count * (part + 1) / parts;
      if (begin < end) body(begin, end);
    } catch (...) {
#pragma omp critical(orrery_parallel_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

/// As parallel_for, but each thread takes the next free item: body(item). For items of uneven cost.
template <class Body>
void parallel_items(const Context& ctx, int64_t count, Body&& body) {
  if (ctx.threads <= 1 || count <= 1 || omp_in_parallel()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) \
    num_threads(static_cast <int>(std::min <int64_t>(ctx.threads, count)))
  for (int64_t i = 0; i < count; ++i) {
    try {
      body(i);
    } catch (...) {
#pragma omp critical(orrery_parallel_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

/// CPUs this process may run on (its affinity mask), at least 1.
int available_cpus();

}  // namespace orrery
