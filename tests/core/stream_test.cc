// Streams and events: what they promise, and the misuse that a device that runs behind
// the host would punish.
#include "core/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/cuda_api.h"
#include "core/error.h"
#include "tests/support/scratch.h"
#include "tests/support/test_device.h"

namespace orrery {
namespace {

using testing::HasSubstr;
using testing_support::error_of;
using testing_support::kDebugDevice;

class StreamOf : public ::testing::TestWithParam<Device> {};

TEST_P(StreamOf, AnEventHoldsTheTimeWhenItWasReached) {
  Stream stream(GetParam());
  const Event begin = stream.record_time();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  const Event end = stream.record_time();
  stream.synchronize();
  EXPECT_GE(stream.between(begin, end), std::chrono::milliseconds(2));
  EXPECT_EQ(stream.between(begin, begin), Event::Clock::duration::zero());
  EXPECT_LE(stream.between(end, begin), -std::chrono::milliseconds(2));
}

TEST_P(StreamOf, WaitsForARecordedEventOfItsDeviceOnly) {
  Stream stream(GetParam()), other(GetParam());
  const Event event = other.record();
  EXPECT_TRUE(event.is_recorded());
  stream.wait(event);
  stream.wait(stream.record());
  EXPECT_THAT(error_of([&] { stream.wait(Event()); }), HasSubstr("that was not recorded"));
  const Device elsewhere = GetParam() == kDebugDevice ? Device{} : kDebugDevice;
  EXPECT_THAT(error_of([&] { device_stream(elsewhere).wait(event); }),
              HasSubstr("waits for an event of " + device_name(GetParam())));
}

TEST_P(StreamOf, AnEventWithoutItsTimeHasNone) {
  Stream stream(GetParam());
  const Event timed = stream.record_time(), untimed = stream.record();
  stream.synchronize();
  for (const Event& event : {untimed, Event()})
    EXPECT_THAT(error_of([&] { stream.between(timed, event); }), HasSubstr("with its time"));
}

TEST_P(StreamOf, AContextHasItsDevices) {
  const Context ctx{.device = GetParam()}, copy = ctx;
  EXPECT_EQ(ctx.stream().device(), GetParam());
  EXPECT_EQ(&ctx.stream(), &copy.stream());
  EXPECT_EQ(&ctx.stream(), &device_stream(GetParam()));
}

INSTANTIATE_TEST_SUITE_P(Devices, StreamOf, ::testing::Values(Device{}, kDebugDevice),
                         [](const auto& test) { return device_name(test.param); });

TEST(DebugStream, ATimeIsReadAfterTheStreamWasSynchronized) {
  Stream stream(kDebugDevice);
  const Event begin = stream.record_time();
  stream.synchronize();
  const Event end = stream.record_time();
  EXPECT_THAT(error_of([&] { stream.between(begin, end); }),
              HasSubstr("before the stream was synchronized"));
  stream.synchronize();
  EXPECT_GE(stream.between(begin, end), Event::Clock::duration::zero());
}

TEST(Stream, AMissingBackendIsNamed) {
  if (kCudaBuilt) GTEST_SKIP() << "no backend is missing";
  const Device cuda{DeviceType::kCuda, 1};
  const std::string expected = "this build has no backend for device cuda:1: use cpu";
  EXPECT_EQ(error_of([&] { const Stream stream(cuda); }), expected);
  EXPECT_EQ(error_of([&] { device_stream(cuda); }), expected);
}

}  // namespace
}  // namespace orrery
