// Devices by the names that users give them.
#pragma once

#include <string>
#include <string_view>

#include "core/context.h"

namespace orrery {

/// CUDA devices are cuda:0 to the one before this.
inline constexpr int kMostCudaDevices = 64;

/// The device that `name` means: "cpu", "debug"; in a CUDA build "cuda", which is
/// "cuda:0", and "cuda:1" (whether the machine has it shows on first use). Usage Error,
/// naming `key` (a config's key or an option) and the devices there are, for one that
/// this build lacks.
Device device_from_name(std::string_view key, std::string_view name);

/// Whether this build can work on the device, if the machine has it.
bool has_backend(Device device);
/// The Error for a device that this build cannot work on.
[[noreturn]] void fail_no_backend(Device device);

}  // namespace orrery
