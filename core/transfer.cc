#include "core/transfer.h"

#include <cstring>

#include "core/closed_memory.h"
#include "core/cuda_api.h"
#include "core/device.h"
#include "core/stream.h"

namespace orrery {
namespace {

/// Between host memory and that of a device which computes on the host. A copy of a few
/// MiB on one thread costs less than starting a team.
void copy(Device device, void* to, const void* from, int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  switch (device.type) {
    case DeviceType::kCpu:
      std::memcpy(to, from, size);
      return;
    case DeviceType::kDebug: {
      const OpenMemory open;
      std::memcpy(to, from, size);
      return;
    }
    case DeviceType::kCuda:
      break;
  }
  fail_no_backend(device);
}

}  // namespace

void upload_bytes(const Context& ctx, void* device, const void* host, int64_t bytes) {
  if (bytes == 0) return;
  if constexpr (kCudaBuilt) {
    if (ctx.device.type == DeviceType::kCuda)
      return ctx.stream().upload(device, host, static_cast<size_t>(bytes));
  }
  copy(ctx.device, device, host, bytes);
}

void download_bytes(const Context& ctx, void* host, const void* device, int64_t bytes) {
  if (bytes == 0) return;
  if constexpr (kCudaBuilt) {
    if (ctx.device.type == DeviceType::kCuda)
      return cuda_api::download(ctx.device, ctx.stream().handle(), host, device,
                                static_cast<size_t>(bytes));
  }
  copy(ctx.device, host, device, bytes);
}

}  // namespace orrery
