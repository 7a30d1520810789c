#include "core/closed_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <map>
#include <mutex>

#include "core/error.h"

namespace orrery {
namespace {

struct Blocks {
  std::mutex mutex;
  std::map<void*, size_t> sizes;  // whole pages
  int openings = 0;
};

/// Never destroyed: buffers of static objects are freed after main.
Blocks& blocks() {
  static auto* instance = new Blocks;
  return *instance;
}

size_t whole_pages(size_t bytes) {
  static const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

/// Blocks that lie side by side, as the system mostly gives them, change in one call.
void protect_all(Blocks& all, int protection) {
  std::byte* begin = nullptr;
  std::byte* end = nullptr;
  const auto protect_run = [&] {
    if (begin == end) return;
    const auto bytes = static_cast<size_t>(end - begin);
    ORRERY_CHECK(::mprotect(begin, bytes, protection) == 0, "mprotect of {} bytes failed", bytes);
  };
  for (const auto& [data, bytes] : all.sizes) {
    auto* const block = static_cast<std::byte*>(data);
    if (block != end) {
      protect_run();
      begin = block;
    }
    end = block + bytes;
  }
  protect_run();
}

}  // namespace

void* allocate_closed(size_t bytes) {
  Blocks& all = blocks();
  const std::lock_guard lock(all.mutex);
  const size_t size = whole_pages(bytes);
  void* data = ::mmap(nullptr, size, all.openings > 0 ? PROT_READ | PROT_WRITE : PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  all.sizes.emplace(data, size);
  return data;
}

void free_closed(void* data, size_t bytes) {
  Blocks& all = blocks();
  const std::lock_guard lock(all.mutex);
  all.sizes.erase(data);
  ::munmap(data, whole_pages(bytes));
}

OpenMemory::OpenMemory() {
  Blocks& all = blocks();
  const std::lock_guard lock(all.mutex);
  if (all.openings++ == 0) protect_all(all, PROT_READ | PROT_WRITE);
}

OpenMemory::~OpenMemory() {
  Blocks& all = blocks();
  const std::lock_guard lock(all.mutex);
  if (--all.openings == 0) protect_all(all, PROT_NONE);
}

}  // namespace orrery
