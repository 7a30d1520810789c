#include "core/upload_ring.h"

#include <algorithm>
#include <cstring>

#include "core/cuda_api.h"
#include "core/device.h"

namespace orrery {

UploadRing::~UploadRing() {
  if constexpr (kCudaBuilt) {
    if (memory_ != nullptr) cuda_api::release_host(device_, memory_);
  }
}

void UploadRing::upload(void* to, const void* from, size_t bytes) {
  if constexpr (kCudaBuilt) {
    const std::lock_guard lock(mutex_);
    if (memory_ == nullptr)
      memory_ = static_cast<std::byte*>(cuda_api::allocate_host(device_, kParts * kPartBytes));
    auto* target = static_cast<std::byte*>(to);
    const auto* source = static_cast<const std::byte*>(from);
    while (bytes > 0) {
      if (used_ == kPartBytes) begin_next_part();
      const size_t count = std::min(bytes, kPartBytes - used_);
      std::byte* const place = memory_ + part_ * kPartBytes + used_;
      std::memcpy(place, source, count);
      cuda_api::queue_upload(device_, stream_, target, place, count);
      used_ += count;
      target += count;
      source += count;
      bytes -= count;
    }
  } else {
    fail_no_backend(device_);
  }
}

void UploadRing::begin_next_part() {
  if constexpr (kCudaBuilt) {
    copied_[part_] = cuda_api::record(device_, stream_, /*timed=*/false);
    part_ = (part_ + 1) % kParts;
    used_ = 0;
    if (copied_[part_] != nullptr) cuda_api::wait_for(device_, copied_[part_].get());
  }
}

}  // namespace orrery
