#include "core/device.h"

#include <fmt/ranges.h>

#include <charconv>
#include <optional>
#include <vector>

#include "core/cuda_api.h"
#include "core/error.h"

namespace orrery {
namespace {

constexpr std::string_view kCpu = "cpu", kDebug = "debug", kCuda = "cuda", kAuto = "auto",
                           kCpuDot16 = "cpu-dot16", kDebugDot16 = "debug-dot16";

std::vector<std::string_view> choices(std::string_view other) {
  std::vector<std::string_view> names = {kCpu, kCpuDot16, kDebug, kAuto};
  if (!other.empty()) names.insert(names.begin(), other);
  if (kCudaBuilt) names.push_back(kCuda);
  return names;
}

/// The device of "cuda". Rank 0's is known without a look at the machine.
Device cuda_device(LocalRank local) {
  int index = 0;
  if constexpr (kCudaBuilt) {
    if (local.rank > 0) index = device_of(local, cuda_api::device_count());
  }
  return {DeviceType::kCuda, index};
}

/// The index of "cuda:N".
std::optional<int> cuda_index(std::string_view name) {
  if (!name.starts_with("cuda:")) return std::nullopt;
  const std::string_view digits = name.substr(kCuda.size() + 1);
  int index = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), index);
  if (error != std::errc() || end != digits.end() || index < 0 || index >= kMostCudaDevices)
    return std::nullopt;
  return index;
}

}  // namespace

int device_of(LocalRank local, int devices) { return devices > 0 ? local.rank % devices : 0; }

DeviceMemory device_memory(Device device) {
  if constexpr (kCudaBuilt) {
    if (device.type == DeviceType::kCuda) return cuda_api::memory(device);
  }
  fail("device {} does not count its memory", device_name(device));
}

std::string device_model(Device device) {
  if constexpr (kCudaBuilt) {
    if (device.type == DeviceType::kCuda) return cuda_api::identity(device).model;
  }
  fail("device {} has no model", device_name(device));
}

std::string device_identity(Device device) {
  if constexpr (kCudaBuilt) {
    if (device.type == DeviceType::kCuda) return cuda_api::identity(device).uuid;
  }
  fail("device {} has no identity", device_name(device));
}

AutoDevice auto_device(LocalRank local) {
  if constexpr (kCudaBuilt) {
    if (cuda_api::device_count() == 0) return {{DeviceType::kCpu}, "there is no CUDA device"};
    const Device device = cuda_device(local);
    const std::string why = cuda_api::misfit(device);
    if (why.empty()) return {device, "an " + cuda_api::identity(device).model};
    return {{DeviceType::kCpu}, fmt::format("{} {}", device_name(device), why)};
  }
  return {{DeviceType::kCpu}, "this build has no kernels for cuda"};
}

Device device_from_name(std::string_view key, std::string_view name, LocalRank local,
                        std::string_view other) {
  if (name == kCpu) return {DeviceType::kCpu};
  if (name == kCpuDot16) return {DeviceType::kCpu, 0, Bf16Sums::kDot16};
  if (name == kDebug) return {DeviceType::kDebug};
  if (name == kDebugDot16) return {DeviceType::kDebug, 0, Bf16Sums::kDot16};
  if (name == kAuto) return auto_device(local).device;
  const bool unnumbered = name == kCuda;
  const std::optional<int> index = cuda_index(name);
  if (kCudaBuilt && unnumbered) return cuda_device(local);
  if (kCudaBuilt && index) return {DeviceType::kCuda, *index};
  fail_usage("{} is '{}', {}: use {}", key, name,
             unnumbered || index ? "which this build has no kernels for" : "which is no device",
             fmt::join(choices(other), " or "));
}

bool has_backend(Device device) { return device.type != DeviceType::kCuda || kCudaBuilt; }

void fail_no_backend(Device device) {
  fail("this build has no backend for device {}: use cpu", device_name(device));
}

}  // namespace orrery
