#include "kernels/cpu/scratch.h"

#include <algorithm>

namespace orrery::kernels::cpu {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kSmallestChunk = size_t{1} << 20;

}  // namespace

Scratch& Scratch::of_this_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

void* Scratch::alloc_bytes(size_t bytes) {
  bytes = (bytes + kAlign - 1) / kAlign * kAlign;
  for (; chunk_ < chunks_.size(); ++chunk_, offset_ = 0) {
    const Buffer& chunk = chunks_[chunk_];
    if (bytes > chunk.bytes() - offset_) continue;
    auto* result = static_cast<std::byte*>(chunk.data()) + offset_;
    offset_ += bytes;
    return result;
  }
  chunks_.emplace_back(Device{}, std::max({bytes, kSmallestChunk, capacity() / 2, wanted_}));
  wanted_ = 0;
  offset_ = bytes;
  return chunks_.back().data();
}

void Scratch::release(Mark mark) noexcept {
  chunk_ = mark.chunk;
  offset_ = mark.offset;
  if (chunk_ != 0 || offset_ != 0 || chunks_.size() < 2) return;
  wanted_ = capacity();  // for the next op to take: nothing may fail here
  chunks_.clear();
}

size_t Scratch::capacity() const {
  size_t total = 0;
  for (const Buffer& chunk : chunks_) total += chunk.bytes();
  return total;
}

}  // namespace orrery::kernels::cpu
