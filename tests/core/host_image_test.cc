// Host memory that stands for device memory: the memory itself on the CPU, a copy on a
// device that the host cannot touch.
#include "core/host_image.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/buffer.h"
#include "tests/support/test_device.h"

namespace orrery {
namespace {

using testing_support::kDebugDevice;

class HostImageOf : public ::testing::TestWithParam<Device> {
 protected:
  HostImageOf() { upload(ctx_, vec_, Array<float>{1, 2, 3, 4, 5}); }
  Array<float> on_device() const {
    Array<float> values(5);
    download(ctx_, Span<float>(values), vec_);
    return values;
  }

  Context ctx_{.device = GetParam()};
  Buffer buffer_{GetParam(), 5 * sizeof(float)};
  Vec<float> vec_{buffer_.vec<float>()};
};

Array<float> values_of(Span<const float> span) { return {span.begin(), span.end()}; }

TEST_P(HostImageOf, IsRead) {
  HostImage image(ctx_, Vec<const float>(vec_));
  EXPECT_EQ(values_of(image.fetch()), (Array<float>{1, 2, 3, 4, 5}));
  upload(ctx_, vec_.part(1, 2), Array<float>{7, 8});
  EXPECT_EQ(values_of(image.fetch({1, 3})), (Array<float>{7, 8}));
  EXPECT_EQ(values_of(image.values()), (Array<float>{1, 7, 8, 4, 5}));
}

TEST_P(HostImageOf, IsWrittenWhenItIsCommitted) {
  HostImage image(ctx_, vec_);
  const Span<float> values = image.values();
  for (int64_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(10 * i);
  if (GetParam() == kDebugDevice) {
    EXPECT_EQ(on_device(), (Array<float>{1, 2, 3, 4, 5}));
    image.commit({3, 4});
    EXPECT_EQ(on_device(), (Array<float>{1, 2, 3, 30, 5}));
  }
  image.commit();
  EXPECT_EQ(on_device(), (Array<float>{0, 10, 20, 30, 40}));
}

TEST_P(HostImageOf, IsReadAndWritten) {
  HostImage image(ctx_, vec_, HostUser::kLibrary);
  const Span<float> values = image.fetch({2, 5});
  values[0] += 0.5f;
  image.commit({2, 5});
  EXPECT_EQ(on_device(), (Array<float>{1, 2, 3.5f, 4, 5}));
}

TEST_P(HostImageOf, CopiesNothingOnTheCpu) {
  const HostImage image(ctx_, vec_);
  EXPECT_EQ(image.values().data() == vec_.data, GetParam() == Device{});
}

INSTANTIATE_TEST_SUITE_P(Devices, HostImageOf, ::testing::Values(Device{}, kDebugDevice),
                         [](const auto& test) { return device_name(test.param); });

}  // namespace
}  // namespace orrery
