// Which GPUs a build runs on, and what users of others are told.
#include "core/cuda_capability.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace orrery {
namespace {

TEST(CudaCapability, CodeRunsOnLaterMinorsOfItsMajor) {
  for (const CudaCapability device : {CudaCapability{8, 0}, {8, 6}, {8, 9}})
    EXPECT_TRUE(runs_on("80-real", device)) << device.minor;
  for (const CudaCapability device : {CudaCapability{7, 5}, {9, 0}, {10, 0}})
    EXPECT_FALSE(runs_on("80-real", device)) << device.major;
  EXPECT_FALSE(runs_on("86-real", {8, 0}));
}

TEST(CudaCapability, PtxRunsOnAllThatCameLater) {
  for (const CudaCapability device : {CudaCapability{9, 0}, {10, 0}, {10, 3}, {12, 0}})
    EXPECT_TRUE(runs_on("90-virtual", device)) << device.major;
  EXPECT_FALSE(runs_on("90-virtual", {8, 9}));
  EXPECT_TRUE(runs_on("100-virtual", {12, 1}));
}

TEST(CudaCapability, ArchitecturesOfOneDeviceRunOnItAlone) {
  EXPECT_TRUE(runs_on("90a", {9, 0}));
  EXPECT_FALSE(runs_on("90a", {10, 0}));
  EXPECT_FALSE(runs_on("100a-real", {10, 3}));
}

TEST(CudaCapability, TensorCoresOfOtherGenerationsAreNotTrusted) {
  for (const CudaCapability device : {CudaCapability{9, 0}, {10, 0}, {10, 3}})
    EXPECT_TRUE(sums_dot16(device)) << device.major;
  for (const CudaCapability device : {CudaCapability{8, 0}, {8, 9}, {11, 0}, {12, 0}})
    EXPECT_FALSE(sums_dot16(device)) << device.major;
}

TEST(CudaCapability, OneOfSeveralIsEnough) {
  for (const std::string_view built : {"80-real 90", "80-real;90", " 80-real ; 90 "}) {
    for (const CudaCapability device : {CudaCapability{8, 0}, {8, 9}, {9, 0}, {10, 0}, {12, 0}})
      EXPECT_TRUE(runs_on(built, device)) << built << " on " << device.major;
    EXPECT_FALSE(runs_on(built, {7, 5})) << built;
  }
  EXPECT_FALSE(runs_on("", {9, 0}));
}

TEST(CudaCapability, AnotherWordIsAnError) {
  for (const std::string_view word : {"native", "90-", "90b", "9", "all"})
    EXPECT_THROW(runs_on(word, {9, 0}), Error) << word;
}

TEST(CudaCapability, ARefusalNamesTheDeviceAndTheBuild) {
  EXPECT_EQ(not_built_for("80-real 90", "Tesla T4", {7, 5}),
            "has compute capability 7.5 (Tesla T4), and this build's kernels are for 80-real 90 "
            "(the CMake option ORRERY_CUDA_ARCHITECTURES)");
}

TEST(CudaCapability, AMissingOrOldDriverIsNamed) {
  EXPECT_EQ(no_cuda_device("cuda:0", "the runtime's words", 0, 13000),
            "device cuda:0: there is no NVIDIA driver on this machine: use cpu");
  EXPECT_EQ(no_cuda_device("cuda:0", "the runtime's words", 12040, 13010),
            "device cuda:0: its driver is for CUDA 12.4, and this program needs one for CUDA 13.0 "
            "or later: install a newer driver, or use cpu");
  EXPECT_EQ(no_cuda_device("cuda:7", "invalid device ordinal", 13000, 13010),
            "device cuda:7: invalid device ordinal: use another device");
}

}  // namespace
}  // namespace orrery
