#include "core/context.h"

#include <fmt/format.h>

namespace orrery {

std::string device_name(Device device) {
  switch (device.type) {
    case DeviceType::kCpu:
      return "cpu";
    case DeviceType::kDebug:
      return "debug";
    case DeviceType::kCuda:
      return fmt::format("cuda:{}", device.index);
  }
  return "?";
}

}  // namespace orrery
