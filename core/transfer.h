// The only bridges between host memory (Span) and device memory (Vec, Mat).
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/buffer.h"
#include "core/context.h"
#include "core/error.h"
#include "core/span.h"
#include "core/tensor.h"

namespace orrery {

/// Copies `bytes` to or from the device, in order with ctx's stream. An upload has
/// taken what the host holds when it returns, and work queued from then on finds it; a
/// download waits for the stream, and is there when it returns. Error for a device that
/// this build lacks.
void upload_bytes(const Context& ctx, void* device, const void* host, int64_t bytes);
void download_bytes(const Context& ctx, void* host, const void* device, int64_t bytes);

/// to = from. Error for unequal lengths.
template <class T>
void upload(const Context& ctx, Vec<T> to, Span<const std::type_identity_t<T>> from) {
  ORRERY_CHECK(to.size == from.size(), "upload of {} elements to {}", from.size(), to.size);
  upload_bytes(ctx, to.data, from.data(), from.size_bytes());
}
template <class T>
void download(const Context& ctx, Span<T> to, Vec<const std::type_identity_t<T>> from) {
  ORRERY_CHECK(to.size() == from.size, "download of {} elements to {}", from.size, to.size());
  download_bytes(ctx, to.data(), from.data, to.size_bytes());
}

/// A copy of `from` in memory of the arena. Error for an arena of another device than
/// ctx's.
template <class T>
Vec<T> upload_into(const Context& ctx, Arena& arena, Span<const T> from) {
  ORRERY_CHECK(arena.device() == ctx.device, "an upload to {} into an arena of {}",
               device_name(ctx.device), device_name(arena.device()));
  const Vec<T> to(arena.alloc<T>(from.size()), from.size());
  upload(ctx, to, from);
  return to;
}

}  // namespace orrery
