// Owned device memory, and an arena for a step's temporaries. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/error.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery {

/// A block of memory on a device, not initialised. It is 64-byte aligned; on the CPU a
/// block of 4 MiB or more is 2 MiB aligned and asks for huge pages. Throws an Error
/// that names the size when there is no memory. Move-only.
class Buffer {
 public:
  /// For that error: what the memory is for, and what to do.
  struct Purpose {
    const char* what = "temporary values";
    const char* remedy = "use a smaller batch, token budget or KV cache";
  };

  Buffer() = default;
  Buffer(Device device, size_t bytes) : Buffer(device, bytes, Purpose()) {}
  Buffer(Device device, size_t bytes, const Purpose& purpose);
  ~Buffer();
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  static Buffer zeroed(Device device, size_t bytes) { return zeroed(device, bytes, Purpose()); }
  static Buffer zeroed(Device device, size_t bytes, const Purpose& purpose);
  /// A view of memory that somebody else owns and that must outlive it.
  static Buffer borrowed(Device device, void* data, size_t bytes);

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  Device device() const { return device_; }
  /// The host's own view. REQUIRES: the CPU's memory.
  template <class T>
  std::span<T> span() const {
    ORRERY_CHECK(device_.type == DeviceType::kCpu, "a host view of {}'s memory",
                 device_name(device_));
    return {static_cast<T*>(data_), bytes_ / sizeof(T)};
  }
  template <class T>
  Vec<T> vec() const {
    return {static_cast<T*>(data_), static_cast<int64_t>(bytes_ / sizeof(T))};
  }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(borrowed_, other.borrowed_);
  }
  Device device_;
  void* data_ = nullptr;
  size_t bytes_ = 0;
  bool borrowed_ = false;
};

/// A bump allocator. A block lives until a Mark that was set before it is released, or
/// until reset(). What a step will take is counted on an arena of measuring(), and
/// reserved before the step; the arena then never grows in mid-step. Without a
/// reservation (tests, tools) it takes another chunk when it is outgrown, and reset()
/// merges the chunks.
class Arena {
 public:
  explicit Arena(Device device = {}, size_t initial_bytes = 0);
  /// Has this memory, which must outlive it, and never takes more.
  static Arena over(Device device, Vec<float> memory);
  /// Has no memory and counts: peak() is what an arena needs for the same calls. Nobody
  /// may touch what it gives.
  static Arena measuring(Device device);
  bool is_measuring() const { return measuring_; }

  /// Between steps: empties the arena and gives it room for `bytes` at least. `what`
  /// names the step and `keys` the settings that make it smaller, for errors: there is
  /// no memory, or (a bug) the step takes more. Both are literals.
  void reserve(size_t bytes, const char* what, const char* keys);

  /// `count` elements of T, 64-byte aligned, not initialised.
  template <class T>
  T* alloc(int64_t count) {
    return static_cast<T*>(alloc_bytes(count * sizeof(T)));
  }
  template <class T>
  Vec<T> vec(int64_t count) {
    return {alloc<T>(count), count};
  }
  template <class T>
  Mat<T> mat(int64_t rows, int64_t cols) {
    return {alloc<T>(rows * cols), rows, cols};
  }
  ActMat act_mat(DType dtype, int64_t rows, int64_t cols) {
    return {alloc_bytes(rows * cols * dtype_bytes(dtype)), dtype, rows, cols, cols};
  }

  struct Mark {
    size_t chunk = 0, offset = 0;
  };
  Mark mark() const { return {chunk_, offset_}; }
  void release(Mark mark) {
    chunk_ = mark.chunk;
    offset_ = mark.offset;
  }
  void reset();

  size_t capacity() const;               ///< bytes held
  size_t peak() const { return peak_; }  ///< most bytes in use at once
  Device device() const { return device_; }

 private:
  void* alloc_bytes(size_t bytes);
  void count_peak();

  Device device_;
  bool measuring_ = false, reserved_ = false, fixed_ = false;
  const char* what_ = "";  // of the reservation
  const char* keys_ = "";
  std::vector<Buffer> chunks_;
  size_t chunk_ = 0, offset_ = 0;
  size_t peak_ = 0;
};

/// Releases, on scope exit, what was allocated from the arena inside the scope.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace orrery
