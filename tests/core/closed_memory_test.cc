// The debug device's memory: a host access outside an opening ends the process;
// openings nest; uploads and downloads get through.
#include "core/closed_memory.h"

#include <gtest/gtest.h>

#include <unistd.h>
#include <cerrno>

#include "core/buffer.h"
#include "core/cuda_api.h"
#include "core/transfer.h"
#include "tests/support/test_device.h"

namespace orrery {
namespace {

using testing_support::kDebugDevice;

TEST(ClosedMemory, AHostAccessFaults) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const Buffer buffer(kDebugDevice, 100);
  auto* data = static_cast<volatile char*>(buffer.data());
  EXPECT_DEATH(data[0] = 1, "");
  EXPECT_DEATH(static_cast<void>(data[99]), "");
}

TEST(ClosedMemory, ASystemCallIsRefused) {
  const Buffer buffer(kDebugDevice, 100);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_EQ(::write(ends[1], buffer.data(), 10), -1);
  EXPECT_EQ(errno, EFAULT);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(ClosedMemory, OpeningsNest) {
  const Buffer first(kDebugDevice, 5000);
  auto* data = static_cast<char*>(first.data());
  {
    const OpenMemory outer;
    { const OpenMemory inner; }
    data[4999] = 7;
    const Buffer second(kDebugDevice, 1);  // made while open
    static_cast<char*>(second.data())[0] = 1;
  }
  const OpenMemory again;
  EXPECT_EQ(data[4999], 7);
  EXPECT_EQ(data[0], 0);
}

TEST(ClosedMemory, UploadsAndDownloadsPass) {
  const Context ctx{.device = kDebugDevice};
  const Buffer buffer(kDebugDevice, 3 * sizeof(float));
  const Vec<float> device(static_cast<float*>(buffer.data()), 3);
  const Array<float> values{1.0f, 2.0f, 3.0f};
  upload(ctx, device, values);
  Array<float> back(3);
  download(ctx, Span<float>(back), device);
  EXPECT_EQ(back, values);
  EXPECT_THROW(upload(ctx, device, Array<float>(2)), Error);
}

TEST(ClosedMemory, AnUploadIntoAnArenaOfAnotherDeviceIsRefused) {
  const Context ctx{.device = kDebugDevice};
  const Array<float> values{1.0f, 2.0f};
  Arena host, device(kDebugDevice);
  EXPECT_THROW(upload_into<float>(ctx, host, values), Error);
  EXPECT_THROW(upload_into<float>({}, device, values), Error);
  EXPECT_EQ(upload_into<float>(ctx, device, values).size, 2);
}

TEST(ClosedMemory, TheHostIsGivenNoView) {
  const Buffer buffer(kDebugDevice, 8);
  EXPECT_EQ(buffer.vec<float>().size, 2);
  EXPECT_THROW(buffer.span<float>(), Error);
}

TEST(ClosedMemory, AMissingBackendIsNamed) {
  if (kCudaBuilt) GTEST_SKIP() << "no backend is missing";
  try {
    const Buffer buffer({DeviceType::kCuda, 1}, 8);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "this build has no backend for device cuda:1: use cpu");
  }
}

}  // namespace
}  // namespace orrery
