// Device memory for a library that knows host memory only, as MPI does: the memory
// itself on the CPU, and a copy in host memory for every other device, which the
// library may touch whenever it likes. Extents are in elements. Copies go to and from
// the device in order with the context's stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>

#include "comm/data_plane.h"
#include "core/context.h"
#include "core/extent.h"
#include "core/span.h"
#include "core/transfer.h"

namespace orrery::comm {

/// Host memory that a library reads and writes on its own until an operation ends.
/// While an Error unwinds, operations may be under way, so then it is not freed.
class HostCopy {
 public:
  explicit HostCopy(int64_t bytes) : memory_(std::make_unique_for_overwrite<std::byte[]>(bytes)) {}
  ~HostCopy() {
    if (std::uncaught_exceptions() > 0) (void)memory_.release();
  }
  HostCopy(const HostCopy&) = delete;
  HostCopy& operator=(const HostCopy&) = delete;
  std::byte* data() const { return memory_.get(); }

 private:
  std::unique_ptr<std::byte[]> memory_;
};

/// Memory that is only read.
class HostSource {
 public:
  HostSource(const Context& ctx, Vec<const float> device)
      : ctx_(ctx), device_(as_bytes(Span<const float>(device.data, device.size))) {
    if (ctx.device.type != DeviceType::kCpu) copy_.emplace(device_.size());
  }

  /// The elements as the device holds them now.
  Span<const std::byte> fetch(const Extent& extent) {
    const Extent bytes{extent.begin * kElement, extent.end * kElement};
    const Span<const std::byte> there = elements_of(device_, bytes);
    if (!copy_) return there;
    const Span<std::byte> here(copy_->data() + bytes.begin, bytes.size());
    download_bytes(ctx_, here.data(), there.data(), here.size());
    return here;
  }

 private:
  static constexpr int64_t kElement = sizeof(float);
  Context ctx_;
  Span<const std::byte> device_;
  std::optional<HostCopy> copy_;
};

/// Memory that is read and written.
class HostImage {
 public:
  HostImage(const Context& ctx, const DeviceArray& device)
      : ctx_(ctx),
        element_(static_cast<int64_t>(dtype_bytes(device.dtype))),
        device_(static_cast<std::byte*>(device.data), device.bytes()) {
    if (ctx.device.type != DeviceType::kCpu) copy_.emplace(device_.size());
  }

  /// Where the elements are to be read and written. What fetch() has not brought there
  /// is not initialised.
  Span<std::byte> room(const Extent& extent) const {
    const Extent bytes{extent.begin * element_, extent.end * element_};
    return copy_ ? Span<std::byte>(copy_->data() + bytes.begin, bytes.size())
                 : elements_of(device_, bytes);
  }
  /// room() with what the device holds now.
  Span<std::byte> fetch(const Extent& extent) {
    const Span<std::byte> here = room(extent);
    if (copy_) download_bytes(ctx_, here.data(), there(extent), here.size());
    return here;
  }
  /// Gives the device what is in room().
  void store(const Extent& extent) {
    const Span<std::byte> here = room(extent);
    if (copy_) upload_bytes(ctx_, there(extent), here.data(), here.size());
  }

 private:
  std::byte* there(const Extent& extent) const { return device_.data() + extent.begin * element_; }

  Context ctx_;
  int64_t element_;  // bytes of one
  Span<std::byte> device_;
  std::optional<HostCopy> copy_;
};

}  // namespace orrery::comm
