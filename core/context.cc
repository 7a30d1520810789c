#include "core/context.h"

#include <fmt/format.h>

namespace orrery {

std::string device_name(Device device) {
  switch (device.type) {
    case DeviceType::kCpu:
      return device.dot16() ? "cpu-dot16" : "cpu";
    case DeviceType::kDebug:
      return device.dot16() ? "debug-dot16" : "debug";
    case DeviceType::kCuda:
      return fmt::format("cuda:{}", device.index);
  }
  return "?";
}

}  // namespace orrery
