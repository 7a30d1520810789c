// Where and how work on device memory runs. Ops, transfers and collectives take a
// Context first.
#pragma once

#include <cstdint>
#include <string>

namespace orrery {

/// kDebug: the CPU's kernels on memory that is closed to the host outside ops, uploads
/// and downloads (core/closed_memory.h), so that a host access to device memory faults.
enum class DeviceType : uint8_t { kCpu, kDebug, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// "cpu", "debug", "cuda:1".
std::string device_name(Device device);

class Stream;
class Profile;

/// Cheap to copy. `threads` is the most CPU threads that an op may use; results never
/// depend on it.
struct Context {
  Device device;
  int threads = 1;
  Profile* profile = nullptr;  ///< where ops record their time (core/profile.h), or null

  /// What the work is in order with: the device's own stream (core/stream.h).
  Stream& stream() const;
};

}  // namespace orrery
