#include "core/device.h"

#include <fmt/ranges.h>

#include "core/error.h"

namespace orrery {
namespace {

constexpr std::string_view kCpu = "cpu", kDebug = "debug", kCuda = "cuda";
constexpr std::string_view kBuilt[] = {kCpu, kDebug};

}  // namespace

Device device_from_name(std::string_view key, std::string_view name) {
  if (name == kCpu) return {DeviceType::kCpu};
  if (name == kDebug) return {DeviceType::kDebug};
  fail_usage("{} is '{}', {}: use {}", key, name,
             name == kCuda || name.starts_with("cuda:") ? "which this build has no kernels for"
                                                        : "which is no device",
             fmt::join(kBuilt, " or "));
}

void fail_no_backend(Device device) {
  fail("this build has no backend for device {}: use cpu", device_name(device));
}

}  // namespace orrery
