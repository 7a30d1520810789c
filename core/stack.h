// Gives threads stacks whose size does not depend on the shell that started the program
// (ulimit -s): kernels keep tiles on the stack, and readers of nested input recurse.
#pragma once

#include <cstddef>
#include <functional>

namespace orrery {

/// Enough for every thread of ours; what Linux gives by default.
inline constexpr size_t kStackBytes = size_t{8} << 20;

/// Returns work(). Where the limit is below kStackBytes, `work` runs on a thread with a
/// stack of that size, and so do threads that are started later, by libraries too. Call
/// it before the process has started threads. `work` must not throw.
int run_with_enough_stack(const std::function<int()>& work);

}  // namespace orrery
