// Memory of the debug device: pages that the host cannot read or write except while an
// op, an upload or a download has them open. A host access anywhere else is a fault
// (SIGSEGV; EFAULT from a system call). No other file changes the protection of pages.
//
// All blocks open and close together. Openings nest, and all threads share the count,
// so that ops on several threads may overlap. Thread-safe.
#pragma once

#include <cstddef>

namespace orrery {

/// Whole pages of at least `bytes`, zeroed, closed unless an OpenMemory is alive. Null
/// when there is no memory.
void* allocate_closed(size_t bytes);
/// `data`, `bytes`: as of allocate_closed.
void free_closed(void* data, size_t bytes);

/// Keeps all closed memory open while it lives.
class OpenMemory {
 public:
  OpenMemory();
  ~OpenMemory();
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;
};

}  // namespace orrery
