// From an op's contract to the backend that runs it. An op is a struct of its arguments
// (`RmsnormForward`), a checked function of the same name (`rmsnorm_forward(ctx, op)`,
// kernels/<op>.cc), and one function of that name in each backend's namespace
// (`cpu::rmsnorm_forward`), which trusts its arguments.
#pragma once

#include "core/closed_memory.h"
#include "core/context.h"
#include "core/error.h"

namespace orrery::kernels {

/// Runs `op` on ctx's device. Error, naming the op, where this build has no backend for
/// it.
template <class Op, class Run>
auto dispatch(const Context& ctx, const char* name, const Op& op, Run* cpu) {
  switch (ctx.device.type) {
    case DeviceType::kCpu:
      return cpu(ctx, op);
    case DeviceType::kDebug: {
      const OpenMemory open;
      return cpu(ctx, op);
    }
    case DeviceType::kCuda:
      break;
  }
  fail("{}: this build has no kernels for device {}: use cpu", name, device_name(ctx.device));
}

}  // namespace orrery::kernels
