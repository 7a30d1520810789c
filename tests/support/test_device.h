// The device that a test runs on, and what is in its memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "core/context.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/transfer.h"

namespace orrery::testing_support {

/// Host memory that no host code may touch outside a kernel (core/closed_memory.h).
inline constexpr Device kDebugDevice{DeviceType::kDebug};

/// The device that ORRERY_TEST_DEVICE names (cpu, debug, cuda); the CPU where it is not
/// set.
inline Device test_device() {
  const char* name = std::getenv("ORRERY_TEST_DEVICE");
  return device_from_name("ORRERY_TEST_DEVICE", name != nullptr ? name : "cpu");
}

/// Whether it is the CUDA emulator, on which a small model takes seconds a step.
inline bool is_emulated(Device device) {
  return device.type == DeviceType::kCuda && device_model(device).starts_with("emulated");
}

/// The types of products to test on test_device(): bf16 alone on cpu-dot16, as f32 is
/// any device's.
inline std::vector<DType> test_dtypes() {
  const Device device = test_device();
  if (device.type != DeviceType::kCuda && device.dot16()) return {DType::kBF16};
  return {DType::kF32, DType::kBF16};
}

inline bool has_bf16() { return test_dtypes().back() == DType::kBF16; }

inline Context test_context(int threads = 1) {
  return {.device = test_device(), .threads = threads};
}

template <class T>
std::vector<std::remove_const_t<T>> downloaded(const Context& ctx, Vec<T> device) {
  std::vector<std::remove_const_t<T>> values(static_cast<size_t>(device.size));
  download(ctx, Span<std::remove_const_t<T>>(values), device);
  return values;
}

}  // namespace orrery::testing_support
