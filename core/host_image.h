// Host memory that stands for device memory: for loaders, files, and libraries that
// know host memory only, as MPI does.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <type_traits>

#include "core/context.h"
#include "core/extent.h"
#include "core/span.h"
#include "core/tensor.h"
#include "core/transfer.h"

namespace orrery {

/// Who reads and writes an image's memory: its owner's code alone, or also a library,
/// on its own, until an operation ends.
enum class HostUser : bool { kOwner, kLibrary };

/// On the CPU, the device memory itself, so that nothing is copied there; elsewhere a
/// copy in host memory, not initialised, that fetch() fills and commit() gives to the
/// device, both in order with the context's stream. An image of const elements is only
/// read. Extents are in elements. Not thread-safe.
///
/// While an Error unwinds, a library's operations may be under way; then its copy is
/// not freed.
template <class T>
class HostImage {
 public:
  HostImage(const Context& ctx, Vec<T> device, HostUser user = HostUser::kOwner)
      : ctx_(ctx), device_(device), user_(user) {
    if (ctx.device.type != DeviceType::kCpu)
      copy_ = std::make_unique_for_overwrite<Value[]>(device.size);
  }
  ~HostImage() {
    if (user_ == HostUser::kLibrary && std::uncaught_exceptions() > 0) (void)copy_.release();
  }
  HostImage(const HostImage&) = delete;
  HostImage& operator=(const HostImage&) = delete;

  /// Where the elements are to be read and written. Off the CPU, what fetch() has not
  /// brought there is not initialised, and what is not committed stays there.
  Span<T> values(const Extent& extent) const {
    return elements_of(
        copy_ ? Span<T>(copy_.get(), device_.size) : Span<T>(device_.data, device_.size), extent);
  }
  Span<T> values() const { return values(all()); }

  /// values() with what the device holds now.
  Span<T> fetch(const Extent& extent) {
    if (copy_) {
      download(ctx_, Span<Value>(copy_.get() + extent.begin, extent.size()),
               elements_of(device_, extent));
    }
    return values(extent);
  }
  Span<T> fetch() { return fetch(all()); }

  /// Gives the device what is in values().
  void commit(const Extent& extent) requires(!std::is_const_v<T>) {
    if (copy_) upload(ctx_, elements_of(device_, extent), values(extent));
  }
  void commit() requires(!std::is_const_v<T>) { commit(all()); }

 private:
  using Value = std::remove_const_t<T>;
  Extent all() const { return {0, device_.size}; }

  Context ctx_;
  Vec<T> device_;
  HostUser user_;
  std::unique_ptr<Value[]> copy_;
};

}  // namespace orrery
