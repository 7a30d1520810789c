// Where and how an op runs. Every op takes a Context first. Today every op runs on the
// CPU and refuses another device, so the pointers that ops take are host memory.
#pragma once

#include <cstdint>

namespace orrery {

enum class DeviceType : uint8_t { kCpu, kCuda };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  bool operator==(const Device&) const = default;
};

/// An in-order queue of work on a device. Work on the CPU is done when the call
/// returns, so its handle is null.
struct Stream {
  void* handle = nullptr;
};

class Profile;

/// Cheap to copy. `threads` is the most CPU threads that an op may use; results never
/// depend on it.
struct Context {
  Device device;
  Stream stream;
  int threads = 1;
  Profile* profile = nullptr;  ///< where ops record their time (core/profile.h), or null
};

}  // namespace orrery
