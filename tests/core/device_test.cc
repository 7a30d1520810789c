// Devices by name: those that this build has, and one clear error for the rest.
#include "core/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace orrery {
namespace {

std::string refusal(std::string_view name) {
  try {
    device_from_name("device", name);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), kExitUsage);
    return error.what();
  }
  return "accepted";
}

TEST(DeviceFromName, KnowsWhatThisBuildHas) {
  EXPECT_EQ(device_from_name("device", "cpu"), Device{DeviceType::kCpu});
  EXPECT_EQ(device_from_name("--device", "debug"), Device{DeviceType::kDebug});
  for (const char* name : {"cpu", "debug"})
    EXPECT_EQ(device_name(device_from_name("device", name)), name);
}

TEST(DeviceFromName, RefusesOthersInOneLine) {
  EXPECT_EQ(refusal("cuda"),
            "device is 'cuda', which this build has no kernels for: use cpu or debug");
  EXPECT_EQ(refusal("cuda:1"),
            "device is 'cuda:1', which this build has no kernels for: use cpu or debug");
  EXPECT_EQ(refusal("gpu"), "device is 'gpu', which is no device: use cpu or debug");
  EXPECT_EQ(refusal("CPU"), "device is 'CPU', which is no device: use cpu or debug");
  EXPECT_EQ(refusal(""), "device is '', which is no device: use cpu or debug");
}

}  // namespace
}  // namespace orrery
