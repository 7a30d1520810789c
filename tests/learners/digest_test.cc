// The bits themselves, written down: log-probs and three updates of small models, from
// random weights on. Every instruction set here, and every machine that runs this
// (tools/aarch64_tests.sh: 64-bit Arm), must give these digests. When they change on
// purpose, the class's version in kernels/numerics.h goes up with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "comm/communicator.h"
#include "kernels/numerics.h"
#include "learners/learner.h"
#include "learners/losses/ppo.h"
#include "tests/learners/tiny_model.h"

namespace orrery::learners {
namespace {

using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;
using testing_support::TinyBatch;

/// FNV-1a over the bytes.
uint64_t digest(std::span<const float> values, uint64_t hash = 0xCBF29CE484222325u) {
  for (const std::byte b : std::as_bytes(values))
    hash = (hash ^ std::to_integer<uint64_t>(b)) * 0x100000001B3u;
  return hash;
}

struct Digests {
  uint64_t initial, logprobs, trained;
  bool operator==(const Digests&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Digests& d) {
  return out << fmt::format("{{0x{:016X}, 0x{:016X}, 0x{:016X}}}", d.initial, d.logprobs,
                            d.trained);
}

Digests run(const std::string& architecture, DType dtype) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config(architecture), test_device(), dtype);
  randomize(model, 31, ctx);
  const auto comm = comm::make_local_communicator();
  Learner learner(ctx, model, *comm, {4, 128, false});
  const TinyBatch batch(17, model.config().vocab_size, {9, 35, 3, 17, 40, 1}, 3);
  const Objective objective{.loss = make_loss(Policy<Ppo>{{}, {}, 0.01f}), .temperature = 0.7f};
  Digests result{digest(testing_support::weights_of(ctx, model)), digest({}), 0};
  auto trees = batch.trees();
  for (const auto& leaf : learner.logprobs(trees, objective.temperature))
    result.logprobs = digest(leaf, result.logprobs);
  kernels::AdamWParams params;
  params.lr = 1e-3f;
  for (int step = 0; step < 3; ++step) learner.update(trees, objective, params, 1.0);
  result.trained = digest(testing_support::weights_of(ctx, model));
  return result;
}

struct Case {
  const char* architecture;
  kernels::NumericsClass numerics;
  Digests expected;
  DType dtype() const {
    return numerics == kernels::NumericsClass::kF32Chain ? DType::kF32 : DType::kBF16;
  }
};

constexpr Case kCases[] = {
    {"llama",
     kernels::NumericsClass::kF32Chain,
     {0x1EEC5DD3D763F22A, 0x01BB5781992E76CF, 0xCB80D361FF655823}},
    {"llama",
     kernels::NumericsClass::kPairs,
     {0x1EEC5DD3D763F22A, 0xF22867B89AB9A2AB, 0x9C9BD64DE37D51B9}},
    {"qwen2",
     kernels::NumericsClass::kF32Chain,
     {0x839A573EB210AC38, 0x5D2BF711A7A8F2A4, 0x6E3F3D5910A84650}},
    {"qwen2",
     kernels::NumericsClass::kPairs,
     {0x839A573EB210AC38, 0x208FF10597419BE0, 0xCB96061EA9B017EE}},
    {"qwen3",
     kernels::NumericsClass::kF32Chain,
     {0x2703A1743B27BAC9, 0xA20065B79EE71E52, 0x2F68E4C032ACD750}},
    {"qwen3",
     kernels::NumericsClass::kPairs,
     {0x2703A1743B27BAC9, 0xF54C2A48422E71D6, 0x9E8BE6C7F747EEE0}},
    {"llama",
     kernels::NumericsClass::kDot16,
     {0x1EEC5DD3D763F22A, 0x8107D8A7D928C1EB, 0x2BDC8AA874010D6D}},
    {"qwen2",
     kernels::NumericsClass::kDot16,
     {0x839A573EB210AC38, 0x663336F0B84657BE, 0x047BEFB545FE1AB2}},
    {"qwen3",
     kernels::NumericsClass::kDot16,
     {0x2703A1743B27BAC9, 0x465D8C4F696BA2E3, 0x37ED7DB490B8A06D}},
};

TEST(Digest, OfLogprobsAndUpdatesIsTheSameOnEveryMachine) {
  using kernels::numerics_class_info;
  ASSERT_EQ(numerics_class_info(kernels::NumericsClass::kF32Chain).version, 2u);
  ASSERT_EQ(numerics_class_info(kernels::NumericsClass::kPairs).version, 1u);
  ASSERT_EQ(numerics_class_info(kernels::NumericsClass::kDot16).version, 1u);
  for (const std::string& target : kernels::supported_pairs_targets()) {
    kernels::set_cpu_target(target);
    for (const Case& c : kCases) {
      const auto types = testing_support::test_dtypes();
      if (std::ranges::find(types, c.dtype()) == types.end() ||
          kernels::numerics_class(testing_support::test_device(), c.dtype()) != c.numerics)
        continue;
      EXPECT_EQ(run(c.architecture, c.dtype()), c.expected)
          << c.architecture << ' ' << numerics_class_info(c.numerics).name << ' ' << target;
    }
  }
  kernels::set_cpu_target("best");
}

}  // namespace
}  // namespace orrery::learners
