// From an op's contract to the backend that runs it. An op is a struct of its arguments
// (`RmsnormForward`), a checked function of the same name (`rmsnorm_forward(ctx, op)`,
// kernels/<op>.cc), and one function of that name in each backend's namespace
// (`cpu::rmsnorm_forward`, `cuda::rmsnorm_forward`), which trusts its arguments.
#pragma once

#include "core/closed_memory.h"
#include "core/context.h"
#include "core/cuda_api.h"
#include "core/error.h"

namespace orrery::kernels {

[[noreturn]] inline void fail_no_kernels(const char* name, Device device) {
  fail("{}: this build has no kernels for device {}: use cpu", name, device_name(device));
}

/// Runs `op` on ctx's device: kCpu(ctx, op) or kCuda(ctx, op). Error, naming the op,
/// where this build has no backend for it. Builds without CUDA have no more of kCuda
/// than its declaration.
template <auto kCpu, auto kCuda, class Op>
auto dispatch(const Context& ctx, const char* name, const Op& op) {
  switch (ctx.device.type) {
    case DeviceType::kCpu:
      return kCpu(ctx, op);
    case DeviceType::kDebug: {
      const OpenMemory open;
      return kCpu(ctx, op);
    }
    case DeviceType::kCuda:
      if constexpr (kCudaBuilt) return kCuda(ctx, op);
      break;
  }
  fail_no_kernels(name, ctx.device);
}

}  // namespace orrery::kernels
