// The sharded optimizer has the bits of one rank's on any number of ranks
// (tests/learners/optimizer_test.cc compares that one with scalar code).
#include "learners/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/rng.h"
#include "tests/mpi/world.h"
#include "tests/support/device_values.h"

namespace orrery::learners {
namespace {

using testing_support::DeviceFloats;
using testing_support::downloaded;
using testing_support::test_context;
using testing_support::world;

constexpr int64_t kElements = 9 * kernels::kNormChunk + 1003;  // unequal slices

std::vector<float> random_floats(uint64_t stream) {
  Philox generator(14, RngPurpose::kTest, stream);
  std::vector<float> values(kElements);
  for (float& v : values) v = static_cast<float>(generator.normal());
  return values;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(std::as_bytes(a), std::as_bytes(b));
}

/// The part of `whole` that a rank's moments hold.
std::vector<float> owned(std::span<const float> whole, std::span<const Extent> extents) {
  std::vector<float> result;
  for (const Extent& e : extents) {
    const auto part = elements_of(whole, e);
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

TEST(ShardedAdamW, HasTheBitsOfOneRankWithinItsSlices) {
  comm::Communicator& comm = world();
  const auto alone = comm::make_local_communicator();
  const Context ctx = test_context();
  const kernels::AdamWParams params{.lr = 1e-3f, .weight_decay = 0.1f};
  ShardedAdamW sharded(ctx.device, kElements, comm.size(), comm.rank()),
      whole(ctx.device, kElements, 1, 0);
  const DeviceFloats w(ctx, random_floats(1)), expected(ctx, random_floats(1));
  for (uint64_t t = 1; t <= 3; ++t) {
    const std::vector<float> gradient = random_floats(10 + t);
    // What a rank does not own it has not been given: only its own extents are read.
    std::vector<float> mine(kElements, std::numeric_limits<float>::quiet_NaN());
    for (const Extent& e : sharded.extents())
      std::copy(gradient.begin() + e.begin, gradient.begin() + e.end, mine.begin() + e.begin);
    const DeviceFloats own(ctx, mine), all(ctx, gradient);
    const auto result = sharded.step(ctx, comm, w.vec(), own.vec(), params, 1.0);
    const auto alike = whole.step(ctx, *alone, expected.vec(), all.vec(), params, 1.0);
    EXPECT_EQ(result.grad_norm, alike.grad_norm);
    EXPECT_FALSE(result.skipped);
    EXPECT_TRUE(same_bits(w.values(), expected.values())) << "gathered from all ranks, step " << t;
  }
  EXPECT_TRUE(same_bits(downloaded(ctx, sharded.m()),
                        owned(downloaded(ctx, whole.m()), sharded.extents())));
  EXPECT_TRUE(same_bits(downloaded(ctx, sharded.v()),
                        owned(downloaded(ctx, whole.v()), sharded.extents())));
}

TEST(ShardedAdamW, IsSkippedByAllRanksWhenOneHasAGradientThatIsNotFinite) {
  comm::Communicator& comm = world();
  const Context ctx = test_context();
  ShardedAdamW optimizer(ctx.device, kElements, comm.size(), comm.rank());
  const std::vector<float> before = random_floats(1);
  std::vector<float> gradient = random_floats(2);
  if (comm.rank() == comm.size() - 1)
    gradient[optimizer.extents().back().end - 1] = std::numeric_limits<float>::infinity();
  const DeviceFloats w(ctx, before), on_device(ctx, gradient);
  EXPECT_TRUE(optimizer.step(ctx, comm, w.vec(), on_device.vec(), {}, 1.0).skipped);
  EXPECT_TRUE(same_bits(w.values(), before));
  EXPECT_EQ(optimizer.t(), 0);
}

}  // namespace
}  // namespace orrery::learners
