#include "core/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/closed_memory.h"
#include "core/cuda_api.h"
#include "core/device.h"
#include "core/error.h"
#include "core/stream.h"

namespace orrery {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

/// Whether a block of this size gets pages of its own.
bool mapped(size_t bytes) { return bytes >= 2 * kHugePage; }

/// Maps fresh zero pages at a 2 MiB boundary, huge ones where the system has them. Null
/// when there is no memory.
void* map_pages(size_t bytes) {
  const size_t size = round_up(bytes, kHugePage);
  void* raw = ::mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* begin = static_cast<std::byte*>(raw);
  const size_t before =
      round_up(reinterpret_cast<uintptr_t>(begin), kHugePage) - reinterpret_cast<uintptr_t>(begin);
  if (before > 0) ::munmap(begin, before);
  if (before < kHugePage) ::munmap(begin + before + size, kHugePage - before);
  ::madvise(begin + before, size, MADV_HUGEPAGE);  // a hint: failure is harmless
  return begin + before;
}

/// Null when there is no memory.
void* allocate(Device device, size_t bytes) {
  switch (device.type) {
    case DeviceType::kCpu:
      return mapped(bytes) ? map_pages(bytes) : std::aligned_alloc(kAlign, round_up(bytes, kAlign));
    case DeviceType::kDebug:
      return allocate_closed(bytes);
    case DeviceType::kCuda:
      if constexpr (kCudaBuilt) return cuda_api::allocate(device, bytes);
      break;
  }
  fail_no_backend(device);
}

}  // namespace

Buffer::Buffer(Device device, size_t bytes, const Purpose& purpose)
    : device_(device), bytes_(bytes) {
  if (bytes == 0) return;
  data_ = allocate(device, bytes);
  if (data_ == nullptr) {
    fail("out of memory: cannot allocate {:.1f} MiB for {} on {}; {}", bytes * 0x1p-20,
         purpose.what, device.type == DeviceType::kCuda ? device_name(device) : "the host",
         purpose.remedy);
  }
}

Buffer::~Buffer() {
  if (data_ == nullptr || borrowed_) return;
  if (device_.type == DeviceType::kDebug) {
    free_closed(data_, bytes_);
  } else if (device_.type == DeviceType::kCuda) {
    if constexpr (kCudaBuilt) cuda_api::release(device_, data_);
  } else if (mapped(bytes_)) {
    ::munmap(data_, round_up(bytes_, kHugePage));
  } else {
    std::free(data_);
  }
}

Buffer Buffer::zeroed(Device device, size_t bytes, const Purpose& purpose) {
  Buffer buffer(device, bytes, purpose);
  if (device.type == DeviceType::kCpu && bytes > 0 && !mapped(bytes))
    std::memset(buffer.data(), 0, bytes);  // fresh pages are zero: none is touched before use
  if constexpr (kCudaBuilt) {
    if (device.type == DeviceType::kCuda && bytes > 0)
      cuda_api::zero(device, device_stream(device).handle(), buffer.data(), bytes);
  }
  return buffer;
}

Buffer Buffer::borrowed(Device device, void* data, size_t bytes) {
  Buffer buffer;
  buffer.device_ = device;
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  buffer.borrowed_ = true;
  return buffer;
}

Arena::Arena(Device device, size_t initial_bytes) : device_(device) {
  if (initial_bytes > 0) chunks_.emplace_back(device, initial_bytes);
}

Arena Arena::over(Device device, Vec<float> memory) {
  Arena arena(device);
  arena.fixed_ = true;
  arena.chunks_.push_back(Buffer::borrowed(device, memory.data, memory.size * sizeof(float)));
  return arena;
}

Arena Arena::measuring(Device device) {
  Arena arena(device);
  arena.measuring_ = true;
  return arena;
}

void Arena::reserve(size_t bytes, const char* what, const char* keys) {
  ORRERY_CHECK(!measuring_, "an arena that measures holds no memory");
  reset();
  reserved_ = true;
  what_ = what;
  keys_ = keys;
  if (bytes <= capacity() && !chunks_.empty()) return;
  if (fixed_) {
    fail(
        "out of memory: {} needs {:.1f} MiB of temporary memory on {} and {:.1f} are left; lower {}",
        what_, bytes * 0x1p-20, device_name(device_), capacity() * 0x1p-20, keys_);
  }
  // By an eighth at least, so that steps that grow little by little take new memory
  // rarely. What it held goes first: both together may be too much.
  bytes = std::max({bytes, capacity() + capacity() / 8, kAlign});
  chunks_.clear();
  try {
    chunks_.emplace_back(device_, bytes);
  } catch (const Error&) {
    fail("out of memory: {} needs {:.1f} MiB of temporary memory on {}; lower {}", what_,
         bytes * 0x1p-20, device_name(device_), keys_);
  }
}

void* Arena::alloc_bytes(size_t bytes) {
  bytes = round_up(bytes, kAlign);
  if (measuring_) {
    offset_ += bytes;
    count_peak();
    return reinterpret_cast<void*>(kAlign + offset_ - bytes);  // NOLINT: an address of nothing
  }
  while (chunk_ < chunks_.size()) {
    Buffer& chunk = chunks_[chunk_];
    if (offset_ + bytes <= chunk.bytes()) {
      void* result = static_cast<char*>(chunk.data()) + offset_;
      offset_ += bytes;
      count_peak();
      return result;
    }
    if (reserved_ || fixed_) break;
    ++chunk_;
    offset_ = 0;
  }
  if (reserved_ || fixed_) {
    fail("{} needs {} bytes more than the {:.1f} MiB of temporary memory planned for it; lower {}",
         what_, offset_ + bytes - capacity(), capacity() * 0x1p-20, keys_);
  }
  chunks_.emplace_back(device_, std::max(bytes, std::max<size_t>(size_t{1} << 20, capacity() / 2)));
  offset_ = bytes;
  count_peak();
  return chunks_.back().data();
}

void Arena::count_peak() {
  size_t used = offset_;
  for (size_t i = 0; i < chunk_; ++i) used += chunks_[i].bytes();
  peak_ = std::max(peak_, used);
}

void Arena::reset() {
  if (chunks_.size() > 1) {
    const size_t total = capacity();
    chunks_.clear();
    chunks_.emplace_back(device_, total);
  }
  chunk_ = offset_ = 0;
}

size_t Arena::capacity() const {
  size_t total = 0;
  for (const Buffer& chunk : chunks_) total += chunk.bytes();
  return total;
}

}  // namespace orrery
