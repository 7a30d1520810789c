// Host memory for what a CPU kernel needs only while it runs: packed operands, a
// thread's work areas. It belongs to the kernels, apart from the arenas of device
// memory that a step plans.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/buffer.h"

namespace orrery::kernels::cpu {

/// The arena of the thread that calls an op; the members of its team may use what it
/// gives. It keeps its memory between ops, so that ops of the same size take nothing
/// from the system. Kernels reach it through ScratchScope alone.
Arena& scratch_of_this_thread();

/// Gives scratch memory that lives as long as the scope. Scopes nest; only the
/// innermost one of a thread may give memory. For the thread that made it. The first
/// scope merges what earlier ops have left in chunks: an Error when there is no memory.
class ScratchScope {
 public:
  ScratchScope();
  ~ScratchScope() { arena_.release(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

  /// `count` elements of T, 64-byte aligned, not initialised.
  template <class T>
  T* alloc(int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    return arena_.alloc<T>(count);
  }

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace orrery::kernels::cpu
