// Devices by the names that users give them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/context.h"

namespace orrery {

/// CUDA devices are cuda:0 to the one before this.
inline constexpr int kMostCudaDevices = 64;

/// A process among those of a job on its host, which share the host's devices.
struct LocalRank {
  int rank = 0, size = 1;
};

/// The device that `name` means: "cpu", "debug", "auto"; "cpu-dot16", the CPU with the
/// bf16 arithmetic of an H100's tensor cores, and likewise "debug-dot16"; in a CUDA
/// build "cuda", and "cuda:1" (whether the machine has it shows on first use). "cuda"
/// is the device of the local rank, where a process has one to itself as long as there
/// are enough, and else they share them round robin. "auto" is auto_device(). Usage
/// Error, naming `key` (a config's key or an option), the devices there are and what
/// else the key may be (`other`, if anything), for one that this build lacks.
Device device_from_name(std::string_view key, std::string_view name, LocalRank local = {},
                        std::string_view other = {});

/// What "auto" means for a process here: the device that "cuda" means, if this build
/// has kernels for it and there is one, and else the CPU.
struct AutoDevice {
  Device device;
  std::string why;  ///< for a log line: "an NVIDIA H100", "there is no CUDA device"
};
AutoDevice auto_device(LocalRank local = {});

/// Bytes of a CUDA device's memory that nobody has taken, and in all.
struct DeviceMemory {
  size_t free = 0, total = 0;
};
DeviceMemory device_memory(Device device);
/// What a CUDA device is sold as: "NVIDIA H100 80GB HBM3".
std::string device_model(Device device);
/// What tells a CUDA device from all others, whatever a process calls it.
std::string device_identity(Device device);

/// The index of the CUDA device for a local rank, where the process sees `devices` of
/// them; 0 where it sees none.
int device_of(LocalRank local, int devices);

/// Whether this build can work on the device, if the machine has it.
bool has_backend(Device device);
/// The Error for a device that this build cannot work on.
[[noreturn]] void fail_no_backend(Device device);

}  // namespace orrery
