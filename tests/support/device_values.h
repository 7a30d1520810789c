// Elements in a device's memory, with the values that they have as a vector of the
// host's.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "core/context.h"
#include "core/transfer.h"
#include "tests/support/test_device.h"

namespace orrery::testing_support {

template <class T>
class DeviceValues {
 public:
  DeviceValues(const Context& ctx, const std::vector<T>& values)
      : ctx_(ctx), buffer_(ctx.device, values.size() * sizeof(T)) {
    upload(ctx_, vec(), Span<const T>(values));
  }
  Vec<T> vec() const {
    return {static_cast<T*>(buffer_.data()), static_cast<int64_t>(buffer_.bytes() / sizeof(T))};
  }
  std::vector<T> values() const { return downloaded(ctx_, vec()); }
  void set(const std::vector<T>& values) { upload(ctx_, vec(), Span<const T>(values)); }

 private:
  Context ctx_;
  Buffer buffer_;
};

using DeviceFloats = DeviceValues<float>;

}  // namespace orrery::testing_support
