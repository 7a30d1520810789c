// The sharded optimizer on one rank against scalar code. tests/mpi/optimizer_test.cc
// compares ranks with one.
#include "learners/optimizer.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/rng.h"
#include "tests/support/device_values.h"

namespace orrery::learners {
namespace {

using kernels::AdamWParams;
using kernels::kNormChunk;
using testing_support::DeviceFloats;

constexpr int64_t kOptimized = 2 * kNormChunk + 1003;
constexpr AdamWParams kParams{
    .lr = 1e-3f, .beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f, .weight_decay = 0.1f};

std::vector<float> random_floats(uint64_t stream) {
  Philox generator(13, RngPurpose::kTest, stream);
  std::vector<float> values(kOptimized);
  for (float& v : values) v = static_cast<float>(generator.normal());
  return values;
}

/// The definition (docs/numerics.md, kernels/optimizer.h), an element at a time.
struct Oracle {
  std::vector<float> w, m = std::vector<float>(kOptimized), v = std::vector<float>(kOptimized);
  int64_t t = 0;

  static double norm(const std::vector<float>& gradient) {
    double total = 0;
    for (int64_t begin = 0; begin < kOptimized; begin += kNormChunk) {
      std::array<float, 16> lanes{};
      for (int64_t i = begin; i < std::min(begin + kNormChunk, kOptimized); ++i)
        lanes[(i - begin) % 16] = std::fma(gradient[i], gradient[i], lanes[(i - begin) % 16]);
      for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
      }
      total += lanes[0];
    }
    return std::sqrt(total);
  }

  void step(const std::vector<float>& gradient, const AdamWParams& p, double clip) {
    const double length = norm(gradient);
    const auto scale = static_cast<float>(clip > 0 && length > clip ? clip / (length + 1e-6) : 1.0);
    ++t;
    double power1 = 1, power2 = 1;
    for (int64_t i = 0; i < t; ++i) {
      power1 *= p.beta1;
      power2 *= p.beta2;
    }
    const double lr = p.lr;
    const auto step_size = static_cast<float>(lr / (1 - power1));
    const auto inverse = static_cast<float>(1 / std::sqrt(1 - power2));
    const auto decay = static_cast<float>(lr * p.weight_decay);
    for (int64_t i = 0; i < kOptimized; ++i) {
      const float g = gradient[i] * scale;
      m[i] = std::fma(p.beta1, m[i], (1.0f - p.beta1) * g);
      v[i] = std::fma(p.beta2, v[i], (1.0f - p.beta2) * g * g);
      const float update = m[i] / std::fma(std::sqrt(v[i]), inverse, p.eps);
      w[i] -= std::fma(step_size, update, decay * w[i]);
    }
  }
};

bool same_floats(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

struct OptimizerFixture {
  Context ctx = testing_support::test_context(2);
  std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  ShardedAdamW optimizer{ctx.device, kOptimized, 1, 0};
  DeviceFloats weights{ctx, random_floats(1)};

  ShardedAdamW::Result step(const std::vector<float>& gradient, double clip = 1) {
    const DeviceFloats on_device(ctx, gradient);
    return optimizer.step(ctx, *comm, weights.vec(), on_device.vec(), kParams, clip);
  }
  std::vector<float> w() const { return weights.values(); }
  std::vector<float> m() { return testing_support::downloaded(ctx, optimizer.m()); }
  std::vector<float> v() { return testing_support::downloaded(ctx, optimizer.v()); }
};

TEST(ShardedAdamW, HasTheBitsOfScalarCode) {
  for (const double clip : {0.0, 1.0, 1e9}) {
    OptimizerFixture f;
    Oracle oracle{f.w()};
    for (uint64_t t = 1; t <= 4; ++t) {
      const std::vector<float> gradient = random_floats(100 + t);
      EXPECT_EQ(f.step(gradient, clip).grad_norm, Oracle::norm(gradient));
      oracle.step(gradient, kParams, clip);
    }
    EXPECT_TRUE(same_floats(f.w(), oracle.w)) << "clip " << clip;
    EXPECT_TRUE(same_floats(f.m(), oracle.m));
    EXPECT_TRUE(same_floats(f.v(), oracle.v));
    EXPECT_EQ(f.optimizer.t(), 4);
  }
}

TEST(ShardedAdamW, GoesOnFromSavedMomentsAsIfNeverStopped) {
  OptimizerFixture whole, first;
  for (uint64_t t = 1; t <= 5; ++t) whole.step(random_floats(t + 7));
  for (uint64_t t = 1; t <= 2; ++t) first.step(random_floats(t + 7));
  OptimizerFixture second;
  second.weights.set(first.w());
  upload(second.ctx, second.optimizer.m(), first.m());
  upload(second.ctx, second.optimizer.v(), first.v());
  second.optimizer.set_t(first.optimizer.t());
  for (uint64_t t = 3; t <= 5; ++t) second.step(random_floats(t + 7));
  EXPECT_TRUE(same_floats(second.w(), whole.w()));
  EXPECT_TRUE(same_floats(second.m(), whole.m()));
  EXPECT_EQ(second.optimizer.t(), 5);

  second.optimizer.reset(second.ctx);
  second.weights.set(random_floats(1));
  OptimizerFixture fresh;
  EXPECT_EQ(second.optimizer.t(), 0);
  second.step(random_floats(8));
  fresh.step(random_floats(8));
  EXPECT_TRUE(same_floats(second.w(), fresh.w())) << "a new stage remembers nothing";
}

TEST(ShardedAdamW, AGradientThatIsNotFiniteChangesNothing) {
  OptimizerFixture f;
  f.step(random_floats(2));
  const std::vector<float> w = f.w(), m = f.m(), v = f.v();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::max()}) {  // whose square is infinite
    std::vector<float> gradient = random_floats(3);
    gradient.back() = bad;
    const ShardedAdamW::Result result = f.step(gradient);
    EXPECT_TRUE(result.skipped) << bad;
    EXPECT_FALSE(std::isfinite(result.grad_norm));
    EXPECT_TRUE(same_floats(f.w(), w) && same_floats(f.m(), m) && same_floats(f.v(), v)) << bad;
    EXPECT_EQ(f.optimizer.t(), 1);
  }
  EXPECT_FALSE(f.step(random_floats(4)).skipped);
  EXPECT_EQ(f.optimizer.t(), 2);
}

}  // namespace
}  // namespace orrery::learners
