// What lets the host go on while a CUDA device takes what was uploaded.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>

#include "core/context.h"

namespace orrery {

/// Page-locked host memory in parts that are filled in turn. A device copies from it
/// behind the host; a part is filled again once the device has copied all of it.
/// Thread-safe.
class UploadRing {
 public:
  /// For copies in order with `stream` (a cudaStream_t). When the ring goes, the stream
  /// must have done them.
  /// Takes its memory, kParts * kPartBytes, on first use. REQUIRES: a CUDA device.
  UploadRing(Device device, void* stream) : device_(device), stream_(stream) {}
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;

  /// Copies `bytes` to the device. `from` may change once this returns, `to` is written
  /// in order with the stream. Waits only when the device is a whole ring behind. Error
  /// where the system locks no memory.
  void upload(void* to, const void* from, size_t bytes);

  static constexpr size_t kPartBytes = size_t{1} << 20;
  static constexpr int kParts = 4;

 private:
  void begin_next_part();

  const Device device_;
  void* const stream_;
  std::mutex mutex_;
  std::byte* memory_ = nullptr;
  int part_ = 0;
  size_t used_ = 0;                                   // of the part
  std::array<std::shared_ptr<void>, kParts> copied_;  // events behind the parts' copies
};

}  // namespace orrery
