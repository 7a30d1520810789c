// Uploads to a device that copies behind the host, as late as it may (runtime.cc).
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/stream.h"
#include "core/transfer.h"
#include "core/upload_ring.h"

namespace orrery {
namespace {

constexpr Context kCuda{.device = {DeviceType::kCuda}};

std::vector<int> numbers(int64_t count, int first) {
  std::vector<int> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST(Uploads, TakeWhatTheHostHoldsWhenTheyReturn) {
  const Buffer memory(kCuda.device, 4000);
  std::vector<int> values = numbers(1000, 1);
  upload(kCuda, memory.vec<int>(), Span<const int>(values));
  std::fill(values.begin(), values.end(), -1);
  download(kCuda, Span<int>(values), memory.vec<int>());
  EXPECT_EQ(values, numbers(1000, 1));
}

TEST(Uploads, GoThroughTheRingInOrderAndMoreThanOnce) {
  // Pieces that do not divide a part, many of them, and some that are a ring and more.
  constexpr int64_t kRing = UploadRing::kParts * UploadRing::kPartBytes / sizeof(int);
  for (const int64_t piece : {kRing / 37, kRing / 3, kRing, 2 * kRing + 5}) {
    const int64_t pieces = std::max<int64_t>(2, 3 * kRing / piece);
    const Buffer memory(kCuda.device, static_cast<size_t>(piece * pieces) * sizeof(int));
    for (int64_t i = 0; i < pieces; ++i) {
      std::vector<int> values = numbers(piece, static_cast<int>(i * piece));
      upload(kCuda, memory.vec<int>().part(i * piece, piece), Span<const int>(values));
      std::fill(values.begin(), values.end(), -1);
    }
    std::vector<int> values(static_cast<size_t>(piece * pieces));
    download(kCuda, Span<int>(values), memory.vec<int>());
    EXPECT_EQ(values, numbers(piece * pieces, 0)) << piece;
  }
}

TEST(Uploads, OfAStreamThatEndsArrive) {
  const Buffer memory(kCuda.device, 4000);
  std::vector<int> values = numbers(1000, 7);
  {
    Stream stream(kCuda.device);
    stream.upload(memory.data(), values.data(), 4000);
  }
  download(kCuda, Span<int>(values), memory.vec<int>());
  EXPECT_EQ(values, numbers(1000, 7));
}

}  // namespace
}  // namespace orrery
