#include "core/transfer.h"

#include <cstring>

#include "core/closed_memory.h"
#include "core/cuda_api.h"
#include "core/device.h"
#include "core/stream.h"

namespace orrery {
namespace {

/// A copy of a few MiB on one thread costs less than starting a team.
void copy(const Context& ctx, void* to, const void* from, int64_t bytes,
          cuda_api::Direction direction) {
  if (bytes == 0) return;
  switch (ctx.device.type) {
    case DeviceType::kCpu:
      std::memcpy(to, from, static_cast<size_t>(bytes));
      return;
    case DeviceType::kDebug: {
      const OpenMemory open;
      std::memcpy(to, from, static_cast<size_t>(bytes));
      return;
    }
    case DeviceType::kCuda:
      if constexpr (kCudaBuilt) {
        cuda_api::copy(ctx.device, ctx.stream().handle(), to, from, static_cast<size_t>(bytes),
                       direction);
        return;
      }
      break;
  }
  fail_no_backend(ctx.device);
}

}  // namespace

void upload_bytes(const Context& ctx, void* device, const void* host, int64_t bytes) {
  copy(ctx, device, host, bytes, cuda_api::Direction::kUpload);
}

void download_bytes(const Context& ctx, void* host, const void* device, int64_t bytes) {
  copy(ctx, host, device, bytes, cuda_api::Direction::kDownload);
}

}  // namespace orrery
