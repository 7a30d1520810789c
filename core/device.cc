#include "core/device.h"

#include <fmt/ranges.h>

#include <charconv>
#include <optional>
#include <vector>

#include "core/cuda_api.h"
#include "core/error.h"

namespace orrery {
namespace {

constexpr std::string_view kCpu = "cpu", kDebug = "debug", kCuda = "cuda";

std::vector<std::string_view> built() {
  std::vector<std::string_view> names = {kCpu, kDebug};
  if (kCudaBuilt) names.push_back(kCuda);
  return names;
}

/// The index of "cuda" or "cuda:N".
std::optional<int> cuda_index(std::string_view name) {
  if (name == kCuda) return 0;
  if (!name.starts_with("cuda:")) return std::nullopt;
  const std::string_view digits = name.substr(kCuda.size() + 1);
  int index = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), index);
  if (error != std::errc() || end != digits.end() || index < 0 || index >= kMostCudaDevices)
    return std::nullopt;
  return index;
}

}  // namespace

Device device_from_name(std::string_view key, std::string_view name) {
  if (name == kCpu) return {DeviceType::kCpu};
  if (name == kDebug) return {DeviceType::kDebug};
  const std::optional<int> index = cuda_index(name);
  if (kCudaBuilt && index) return {DeviceType::kCuda, *index};
  fail_usage("{} is '{}', {}: use {}", key, name,
             index ? "which this build has no kernels for" : "which is no device",
             fmt::join(built(), " or "));
}

bool has_backend(Device device) { return device.type != DeviceType::kCuda || kCudaBuilt; }

void fail_no_backend(Device device) {
  fail("this build has no backend for device {}: use cpu", device_name(device));
}

}  // namespace orrery
