// Devices by name: those that this build has, and one clear error for the rest.
#include "core/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/cuda_api.h"
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
  if (!kCudaBuilt) return;
  EXPECT_EQ(device_from_name("device", "cuda"), (Device{DeviceType::kCuda, 0}));
  EXPECT_EQ(device_from_name("device", "cuda:1"), (Device{DeviceType::kCuda, 1}));
}

TEST(DeviceFromName, RefusesOthersInOneLine) {
  const std::string built = kCudaBuilt ? "cpu or debug or cuda" : "cpu or debug";
  for (const char* name : {"gpu", "CPU", "", "cuda:", "cuda:x", "cuda:-1", "cuda:64"}) {
    EXPECT_EQ(refusal(name),
              "device is '" + std::string(name) + "', which is no device: use " + built);
  }
  if (kCudaBuilt) return;
  EXPECT_EQ(refusal("cuda"),
            "device is 'cuda', which this build has no kernels for: use cpu or debug");
  EXPECT_EQ(refusal("cuda:1"),
            "device is 'cuda:1', which this build has no kernels for: use cpu or debug");
}

}  // namespace
}  // namespace orrery
