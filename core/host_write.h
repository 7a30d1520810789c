// Device memory that host code fills whole, as loaders of weights and checkpoints do.
#pragma once

#include <cstdint>
#include <memory>

#include "core/context.h"
#include "core/transfer.h"

namespace orrery {

/// Host memory that stands for `device` until commit(): the device's own on the CPU, so
/// that nothing is copied there, and a copy elsewhere, not initialised, which commit()
/// uploads. What is not committed may have been written or not. Not thread-safe.
class HostWrite {
 public:
  HostWrite(const Context& ctx, Vec<float> device) : ctx_(ctx), device_(device) {
    if (ctx.device.type != DeviceType::kCpu)
      copy_ = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(device.size));
  }

  Span<float> values() const { return {copy_ ? copy_.get() : device_.data, device_.size}; }
  void commit() {
    if (copy_) upload(ctx_, device_, values());
  }

 private:
  Context ctx_;
  Vec<float> device_;
  std::unique_ptr<float[]> copy_;
};

}  // namespace orrery
