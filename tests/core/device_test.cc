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
  for (const char* name : {"cpu", "debug", "cpu-dot16", "debug-dot16"})
    EXPECT_EQ(device_name(device_from_name("device", name)), name);
  if (!kCudaBuilt) return;
  EXPECT_EQ(device_from_name("device", "cuda"), (Device{DeviceType::kCuda, 0}));
  EXPECT_EQ(device_from_name("device", "cuda:1"), (Device{DeviceType::kCuda, 1}));
}

TEST(DeviceFromName, RanksOfAHostHaveADeviceEachOrShareInTurn) {
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(device_of({rank, 4}, 8), rank);
  EXPECT_EQ(device_of({3, 4}, 4), 3);
  EXPECT_EQ(device_of({3, 4}, 2), 1);
  EXPECT_EQ(device_of({3, 4}, 1), 0);
  EXPECT_EQ(device_of({3, 4}, 0), 0) << "which the first use of the device tells";
  EXPECT_EQ(device_from_name("device", "cpu", {3, 4}), Device{DeviceType::kCpu});
  if (!kCudaBuilt) return;
  EXPECT_EQ(device_from_name("device", "cuda:2", {3, 4}), (Device{DeviceType::kCuda, 2}))
      << "a number is the device of all ranks";
}

TEST(DeviceFromName, AutoIsTheCpuWhereThereIsNoGpu) {
  const AutoDevice chosen = auto_device({1, 2});
  EXPECT_EQ(device_from_name("device", "auto", {1, 2}), chosen.device);
  if (chosen.device.type == DeviceType::kCuda) return;
  EXPECT_EQ(chosen.device, Device{DeviceType::kCpu});
  if (!kCudaBuilt) {
    EXPECT_EQ(chosen.why, "this build has no kernels for cuda");
  } else {
    EXPECT_THAT(chosen.why,
                testing::AnyOf("there is no CUDA device", testing::HasSubstr("kernels are for")));
  }
}

TEST(DeviceFromName, RefusesOthersInOneLine) {
  const std::string built = kCudaBuilt ? "cpu or cpu-dot16 or debug or auto or cuda"
                                       : "cpu or cpu-dot16 or debug or auto";
  for (const char* name : {"gpu", "CPU", "", "cuda:", "cuda:x", "cuda:-1", "cuda:64"}) {
    EXPECT_EQ(refusal(name),
              "device is '" + std::string(name) + "', which is no device: use " + built);
  }
  if (kCudaBuilt) return;
  EXPECT_EQ(
      refusal("cuda"),
      "device is 'cuda', which this build has no kernels for: use cpu or cpu-dot16 or debug or auto");
  EXPECT_EQ(
      refusal("cuda:1"),
      "device is 'cuda:1', which this build has no kernels for: use cpu or cpu-dot16 or debug or auto");
}

}  // namespace
}  // namespace orrery
