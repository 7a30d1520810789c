// Floats in a device's memory, with the values that they have as a vector of the
// host's.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/transfer.h"

namespace orrery::testing_support {

/// The devices whose memory tests can use: the CPU's, and memory that the host must not
/// touch outside uploads, downloads and ops.
inline const Context kTestDevices[] = {Context{}, Context{.device = {DeviceType::kDebug}}};

class DeviceFloats {
 public:
  DeviceFloats(const Context& ctx, const std::vector<float>& values)
      : ctx_(ctx), buffer_(ctx.device, values.size() * sizeof(float)) {
    upload(ctx_, vec(), Span<const float>(values));
  }
  Vec<float> vec() const {
    return {static_cast<float*>(buffer_.data()),
            static_cast<int64_t>(buffer_.bytes() / sizeof(float))};
  }
  std::vector<float> values() const { return downloaded(ctx_, vec()); }

  static std::vector<float> downloaded(const Context& ctx, Vec<const float> device) {
    std::vector<float> values(static_cast<size_t>(device.size));
    download(ctx, Span<float>(values), device);
    return values;
  }

 private:
  Context ctx_;
  Buffer buffer_;
};

}  // namespace orrery::testing_support
