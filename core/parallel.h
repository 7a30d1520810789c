// Loop parallelism inside an op. Bodies must write disjoint outputs, and no result may
// depend on how the loop was split.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "core/context.h"
#include "core/team.h"

namespace orrery {

/// Calls body(begin, end) for contiguous parts of [0, count), at most ctx.threads at
/// once. `grain` is the least number of items worth a thread. An exception of a part is
/// rethrown in the caller. Nested calls run serially.
template <class Body>
void parallel_for(const Context& ctx, int64_t count, int64_t grain, Body&& body) {
  const int64_t wanted =
      std::min({int64_t{ctx.threads}, count / std::max<int64_t>(grain, 1), kMaxParts});
  if (wanted <= 1 || inside_part()) {
    if (count > 0) body(int64_t{0}, count);
    return;
  }
  run_parts(wanted, [&](int64_t part) {
    const int64_t begin = count * part / wanted;
    const int64_t end = count * (part + 1) / wanted;
    if (begin < end) body(begin, end);
  });
}

/// As parallel_for, except that each thread takes the next free item and calls
/// body(item). Meant for items of uneven cost. After an exception some of the items
/// that nobody had begun may be left out.
template <class Body>
void parallel_items(const Context& ctx, int64_t count, Body&& body) {
  const int64_t wanted = std::min({int64_t{ctx.threads}, count, kMaxParts});
  if (wanted <= 1 || inside_part()) {
    for (int64_t i = 0; i < count; ++i) body(i);
    return;
  }
  std::atomic<int64_t> next = 0;
  run_parts(wanted, [&](int64_t) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      body(i);
    }
  });
}

/// The number of CPUs that this process may run on, by its affinity mask and by the
/// quotas of its control groups; at least 1.
int available_cpus();

}  // namespace orrery
