// Where and how work on device memory runs. Ops, transfers and collectives take a
// Context first.
#pragma once

#include <cstdint>
#include <string>

namespace orrery {

/// kDebug: the CPU's kernels on memory that is closed to the host outside ops, uploads
/// and downloads (core/closed_memory.h), so that a host access to device memory faults.
enum class DeviceType : uint8_t { kCpu, kDebug, kCuda };

/// How the CPU's kernels sum products of bf16 numbers (docs/numerics.md). CUDA devices
/// have tensor cores' way alone, whatever is said here.
enum class Bf16Sums : uint8_t { kPairs, kDot16 };

struct Device {
  DeviceType type = DeviceType::kCpu;
  int index = 0;
  Bf16Sums bf16 = Bf16Sums::kPairs;
  bool operator==(const Device&) const = default;
  /// Whether bf16 products are summed as tensor cores do.
  bool dot16() const { return type == DeviceType::kCuda || bf16 == Bf16Sums::kDot16; }
};

/// "cpu", "debug", "cuda:1"; "cpu-dot16", "debug-dot16".
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
