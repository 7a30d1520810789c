// Recorded log-probs are checked to the bit before anything is learned from them; those
// of other numerics are recomputed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "comm/communicator.h"
#include "kernels/elementwise.h"
#include "learners/learner.h"
#include "learners/losses/ppo.h"
#include "tests/learners/tiny_gradient.h"
#include "tests/support/scratch.h"

namespace orrery::learners {
namespace {

using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;
using testing_support::TinyBatch;

constexpr float kTemperature = 0.7f;

/// A learner and a batch whose recorded log-probs are its own.
struct VerifyFixture {
  Context ctx = test_context();
  models::Transformer model{tiny_config("qwen3"), test_device(), DType::kF32};
  std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  Learner learner{ctx, model, *comm, {4, 150, false}};
  TinyBatch batch{21, 37, {9, 35, 3, 17, 8}, 3};
  Objective objective{
      .loss = make_loss(Policy<Ppo>{}), .temperature = kTemperature, .verify_logprobs = true};

  VerifyFixture() {
    randomize(model, 5, ctx);
    auto trees = this->trees();
    const auto logprobs = learner.logprobs(trees, kTemperature);
    size_t at = 0;
    for (auto& group : batch.old_logprobs) {
      for (auto& sample : group) sample = logprobs[at++];
    }
  }

  std::vector<Tree> trees() const {
    auto trees = batch.trees();
    for (Tree& tree : trees) {
      for (Leaf& leaf : tree.leaves) leaf.exact = true;
    }
    return trees;
  }

  UpdateResult update() {
    auto trees = this->trees();
    kernels::AdamWParams params;
    params.lr = 1e-3f;
    return learner.update(trees, objective, params, 1.0);
  }

  std::vector<float> weights() const { return testing_support::weights_of(ctx, model); }
};

TEST(VerifyLogprobs, EqualBitsAreLearnedFrom) {
  VerifyFixture f;
  const auto before = f.weights();
  const UpdateResult result = f.update();
  EXPECT_FALSE(result.refused);
  EXPECT_EQ(result.sums.mismatches.count, 0);
  EXPECT_EQ(result.sums.logprob_diff_max, 0);
  EXPECT_NE(f.weights(), before);
}

TEST(Learner, LearnsTheSameInGivenMemory) {
  VerifyFixture own, given;
  const Buffer memory(test_device(), size_t{4} << 20);
  given.learner.use_memory(memory.vec<float>());
  EXPECT_EQ(given.learner.idle_memory().data, memory.vec<float>().data);
  for (int step = 0; step < 2; ++step) {
    // What others leave there changes nothing.
    kernels::fill(given.ctx,
                  {.y = memory.vec<float>(), .value = std::numeric_limits<float>::quiet_NaN()});
    auto trees = own.trees(), same = given.trees();
    EXPECT_EQ(given.learner.logprobs(same, kTemperature),
              own.learner.logprobs(trees, kTemperature));
    own.objective.verify_logprobs = given.objective.verify_logprobs = step == 0;
    own.update();
    given.update();
    EXPECT_EQ(given.weights(), own.weights());
  }
  EXPECT_THAT(
      testing_support::error_of([&] { given.learner.use_memory(memory.vec<float>().part(0, 64)); }),
      testing::HasSubstr("out of memory: the gradients of"));
  given.learner.use_memory(memory.vec<float>().part(0, 36000));
  EXPECT_THAT(testing_support::error_of([&] { given.update(); }),
              testing::HasSubstr("out of memory"));
}

TEST(VerifyLogprobs, OneUlpIsRefusedAndNothingIsLearned) {
  VerifyFixture f;
  float& damaged = f.batch.old_logprobs[3][1][0];
  const float right = damaged;
  damaged = std::nextafter(right, 0.0f);
  const auto before = f.weights();
  const UpdateResult result = f.update();
  EXPECT_TRUE(result.refused);
  EXPECT_EQ(result.sums.mismatches.count, 1);
  const TokenPlace& m = result.sums.mismatches.first;
  EXPECT_EQ(m.place(), std::tuple(uint64_t{3}, 1u, 0));
  EXPECT_EQ(m.token_id, f.batch.responses[3][1][0]);
  EXPECT_EQ(m.recorded, damaged);
  EXPECT_EQ(m.recomputed, right);
  EXPECT_EQ(f.weights(), before);
  EXPECT_EQ(f.learner.optimizer().t(), 0);

  damaged = right;  // and a refused batch leaves nothing behind
  VerifyFixture fresh;
  EXPECT_FALSE(f.update().refused);
  fresh.update();
  EXPECT_EQ(f.weights(), fresh.weights());
}

TEST(VerifyLogprobs, NamesTheFirstOfSeveral) {
  VerifyFixture f;
  for (const size_t prompt : {size_t{4}, size_t{1}, size_t{2}}) {
    float& x = f.batch.old_logprobs[prompt][2][0];
    x = std::nextafter(x, -100.0f);
  }
  f.batch.old_logprobs[2][0][0] = std::numeric_limits<float>::quiet_NaN();
  const UpdateResult result = f.update();
  EXPECT_TRUE(result.refused);
  EXPECT_EQ(result.sums.mismatches.count, 4);
  EXPECT_EQ(result.sums.mismatches.first.place(), std::tuple(uint64_t{1}, 2u, 0));
}

TEST(VerifyLogprobs, OnlyWhatIsComparableIsCompared) {
  VerifyFixture f;
  f.batch.old_logprobs[0][0][0] -= 0.25f;
  f.objective.verify_logprobs = false;
  UpdateResult result = f.update();
  EXPECT_FALSE(result.refused);
  EXPECT_EQ(result.sums.mismatches.count, 1) << "reported, not refused";
  EXPECT_NEAR(result.sums.logprob_diff_max, 0.25, 1e-6);

  f.objective.verify_logprobs = true;  // the weights have moved: nothing is exact now
  auto trees = f.batch.trees();
  result = f.learner.update(trees, f.objective, {}, 1.0);
  EXPECT_FALSE(result.refused);
  EXPECT_EQ(result.sums.mismatches.count, 0);
}

/// What may be wrong with a token of prompt 2, sample 1.
struct Spoilt {
  const char* what;
  float old_logprob = -1.5f, weight = 1, advantage = 0.5f;
};

TEST(NotFinite, SkipsTheMiniBatchAsAWholeWhereverItStands) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  for (const Spoilt& spoilt :
       {Spoilt{"a log-prob that is NaN", nan}, Spoilt{"a log-prob of 0", -inf},
        Spoilt{"an infinite log-prob", inf}, Spoilt{"a weight that is NaN", -1.5f, nan},
        Spoilt{"an infinite weight", -1.5f, inf}, Spoilt{"an advantage that is NaN", -1.5f, 1, nan},
        Spoilt{"an infinite advantage", -1.5f, 1, -inf}}) {
    VerifyFixture f;
    f.objective.verify_logprobs = false;
    const size_t size = f.batch.responses[2][1].size();
    for (size_t token = 0; token < size; ++token) {
      if (f.batch.masks[2][1][token] == 0) continue;
      auto logprobs = f.batch.old_logprobs[2][1];
      logprobs[token] = spoilt.old_logprob;
      std::vector<float> weights(size, 1.0f);
      weights[token] = spoilt.weight;
      auto trees = f.trees();
      Leaf& leaf = trees[2].leaves[1];
      leaf.old_logprobs = logprobs;
      leaf.is_weights = weights;
      const std::vector<float> advantages(size, spoilt.advantage);
      leaf.advantages = advantages;
      const auto before = f.weights();
      kernels::AdamWParams params;
      params.lr = 1e-3f;
      const UpdateResult result = f.learner.update(trees, f.objective, params, 1.0);
      EXPECT_TRUE(result.skipped) << spoilt.what;
      EXPECT_FALSE(result.refused);
      EXPECT_EQ(f.weights(), before) << spoilt.what;
      EXPECT_EQ(f.learner.optimizer().t(), 0);
      EXPECT_TRUE(std::isnan(result.grad_norm));
      const bool whole_sample = !std::isfinite(spoilt.advantage);
      EXPECT_EQ(result.sums.not_finite.count,
                whole_sample ? static_cast<double>(leaf.loss_tokens()) : 1.0);
      EXPECT_EQ(result.sums.not_finite.first.prompt_index, leaf.prompt_index);
      EXPECT_EQ(result.sums.not_finite.first.sample_index, leaf.sample_index);
      if (!whole_sample) {
        EXPECT_EQ(result.sums.not_finite.first.position, static_cast<int32_t>(token));
      }
      const std::string text = skipped_update_text(result);
      EXPECT_NE(text.find(fmt::format("first prompt {} sample {} token ", leaf.prompt_index,
                                      leaf.sample_index)),
                std::string::npos)
          << text;
    }
  }
}

TEST(NotFinite, WeightsOfTheModelSkipAnImitationStepToo) {
  VerifyFixture f;
  auto trees = f.trees();
  f.objective = sft_objective();
  testing_support::change_weights(f.ctx, f.model, [](std::vector<float>& weights) {
    weights[5] = std::numeric_limits<float>::quiet_NaN();
  });
  f.model.pack(f.ctx);
  const UpdateResult result = f.learner.update(trees, f.objective, {}, 1.0);
  EXPECT_TRUE(result.skipped);
  EXPECT_GT(result.sums.not_finite.count, 0);
}

TEST(ImportanceWeight, EntersTheGradientOfItsTokens) {
  VerifyFixture f;
  const auto gradient = [&](float weight) {
    auto trees = f.batch.trees();
    const std::vector<float> weights(64, weight);
    const testing_support::DeviceFloats result(
        f.ctx, std::vector<float>(static_cast<size_t>(f.model.table().flat_size())));
    for (Tree& tree : trees) {
      for (Leaf& leaf : tree.leaves) leaf.is_weights = std::span(weights).first(leaf.tokens.size());
    }
    LossSums sums(f.objective.loss->terms());
    Arena arena(f.ctx.device);
    const auto batches = pack(testing_support::pointers(trees), 1 << 20, 1);
    testing_support::shard_gradient(f.ctx, f.model, f.objective, batches, result.vec(), sums,
                                    arena);
    return result.values();
  };
  const auto whole = gradient(1.0f), half = gradient(0.5f);
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_EQ(half[i], 0.5f * whole[i]);  // a power of two: exact
}

}  // namespace
}  // namespace orrery::learners
