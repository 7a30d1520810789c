#include "core/buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace orrery {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kHugePage = size_t{2} << 20;

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

Buffer::Buffer(Device device, size_t bytes) : device_(device), bytes_(bytes) {
  if (device.type != DeviceType::kCpu) fail("this build has no {} support; set device: cpu", "CUDA");
  if (bytes == 0) return;
  const size_t align = bytes >= 2 * kHugePage ? kHugePage : kAlign;
  data_ = std::aligned_alloc(align, round_up(bytes, align));
  if (data_ == nullptr) {
    fail(
        "out of memory: cannot allocate {:.1f} MiB on the host; use a smaller batch, token budget or KV "
        "cache",
        static_cast<double>(bytes) / (1 << 20));
  }
  if (align == kHugePage)
    madvise(data_, round_up(bytes, align), MADV_HUGEPAGE);  // a hint: failure is harmless
}

Buffer::~Buffer() { std::free(data_); }

Buffer Buffer::zeroed(Device device, size_t bytes) {
  Buffer buffer(device, bytes);
  if (bytes > 0) std::memset(buffer.data(), 0, bytes);
  return buffer;
}

Arena::Arena(Device device, size_t initial_bytes) : device_(device) {
  if (initial_bytes > 0) chunks_.emplace_back(device, initial_bytes);
}

void* Arena::alloc_bytes(size_t bytes) {
  bytes = round_up(bytes, kAlign);
  while (chunk_ < chunks_.size()) {
    Buffer& chunk = chunks_[chunk_];
    if (offset_ + bytes <= chunk.bytes()) {
      void* result = static_cast<char*>(chunk.data()) + offset_;
      offset_ += bytes;
      return result;
    }
    ++chunk_;
    offset_ = 0;
  }
  chunks_.emplace_back(device_, std::max(bytes, std::max<size_t>(size_t{1} << 20, capacity() / 2)));
  offset_ = bytes;
  return chunks_.back().data();
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
