// Host memory for what a CPU kernel needs only while it runs: packed operands, a
// thread's work areas. It belongs to the kernels, apart from the arenas of device
// memory that a step plans.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/buffer.h"

namespace orrery::kernels::cpu {

/// A bump allocator of the thread that calls an op; the members of its team may use
/// what it gives. It keeps its memory between ops, so that ops of the same size take
/// nothing from the system. Reached through ScratchScope alone.
class Scratch {
 public:
  /// This thread's.
  static Scratch& of_this_thread();

  struct Mark {
    size_t chunk = 0, offset = 0;
  };
  Mark mark() const { return {chunk_, offset_}; }
  /// Takes back what was given since `mark`. When nothing is left in use, several
  /// chunks are given up for one of their size, which the next op takes.
  void release(Mark mark) noexcept;
  void* alloc_bytes(size_t bytes);
  size_t capacity() const;  ///< bytes held

 private:
  std::vector<Buffer> chunks_;
  size_t chunk_ = 0, offset_ = 0;
  size_t wanted_ = 0;  // bytes of the next chunk, at least
};

/// Gives scratch memory that lives as long as the scope. Scopes nest; only the
/// innermost one of a thread may give memory. For the thread that made it.
class ScratchScope {
 public:
  ScratchScope() : scratch_(Scratch::of_this_thread()), mark_(scratch_.mark()) {}
  ~ScratchScope() { scratch_.release(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

  /// `count` elements of T, 64-byte aligned, not initialised.
  template <class T>
  T* alloc(int64_t count) {
    static_assert(std::is_trivially_destructible_v<T>);
    return static_cast<T*>(scratch_.alloc_bytes(count * sizeof(T)));
  }

 private:
  Scratch& scratch_;
  Scratch::Mark mark_;
};

}  // namespace orrery::kernels::cpu
