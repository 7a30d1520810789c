// A policy beyond repair is told from a sound one: by its weights, its moments, and
// what it says of a sample.
#include "experiments/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/error.h"
#include "experiments/on_all_ranks.h"
#include "kernels/reductions.h"
#include "tests/learners/tiny_model.h"

namespace orrery::experiments {
namespace {

using testing::HasSubstr;
using testing_support::change_weights;
using testing_support::randomize;
using testing_support::tiny_config;

constexpr float kInf = std::numeric_limits<float>::infinity();

struct Policy {
  Context ctx = testing_support::test_context();
  models::Transformer model{tiny_config("qwen3"), ctx.device, DType::kF32};
  std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  learners::Learner learner{ctx, model, *comm, {4, 150, false}};
  std::vector<int32_t> prompt{1, 2, 3}, response{4, 5};
  std::vector<uint8_t> mask{1, 1};
  std::optional<DivergenceCheck> check;

  Policy() {
    randomize(model, 5, ctx);
    check.emplace(ctx, *comm, std::as_const(model).parameters(), learner,
                  kernels::max_abs(ctx, {.x = std::as_const(model).parameters()}));
  }
  PolicyProbe probe() const { return {prompt, response, mask, 1.0F}; }
  std::string problem() { return check->problem(probe()); }
  float exchange(Vec<float> values, int64_t at, float value) const {
    const float was = testing_support::downloaded(ctx, values.part(at, 1)).front();
    upload(ctx, values.part(at, 1), Span<const float>(&value, 1));
    return was;
  }
};

TEST(Divergence, ASoundPolicyHasNoProblemAndIsNotChanged) {
  Policy policy;
  const std::vector<float> before = testing_support::weights_of(policy.ctx, policy.model);
  EXPECT_EQ(policy.problem(), "");
  EXPECT_EQ(policy.check->problem(std::nullopt), "");
  EXPECT_EQ(testing_support::weights_of(policy.ctx, policy.model), before);
}

TEST(Divergence, EveryElementOfWeightsAndMomentsCounts) {
  Policy policy;
  for (const float bad : {std::nanf(""), -std::nanf(""), kInf, -kInf}) {
    for (const auto& [values, says] :
         {std::pair{policy.model.write_parameters(), "weights are not finite"},
          std::pair{policy.learner.optimizer().m(), "moments are not finite"},
          std::pair{policy.learner.optimizer().v(), "moments are not finite"}}) {
      for (const int64_t at : {int64_t{0}, values.size / 2, values.size - 1}) {
        const float was = policy.exchange(values, at, bad);
        EXPECT_THAT(policy.problem(), HasSubstr(says));
        EXPECT_THAT(policy.check->problem(std::nullopt), HasSubstr(says));
        policy.exchange(values, at, was);
      }
    }
  }
  policy.model.pack(policy.ctx);
  EXPECT_EQ(policy.problem(), "");
}

TEST(Divergence, AWeightThatNoTrainingMakesIsOne) {
  Policy policy;
  const auto set_weight = [&](float value) {
    policy.exchange(policy.model.write_parameters(), 7, value);
  };
  set_weight(-2.9F);
  EXPECT_EQ(policy.check->problem(std::nullopt), "");
  set_weight(-1e30F);  // its square overflows: normalised it is 0, and so is every gradient
  EXPECT_THAT(policy.check->problem(std::nullopt),
              HasSubstr("a weight has grown to 1e+30, where "));
  set_weight(300);
  policy.learner.optimizer().set_t(1);
  EXPECT_THAT(policy.check->problem(std::nullopt), HasSubstr("a weight has grown to 300"));
  policy.learner.optimizer().set_t(100'000);
  EXPECT_EQ(policy.check->problem(std::nullopt), "") << "little by little it may become so";
  policy.learner.optimizer().set_t(0);
  // A model that came with such a weight may keep it.
  EXPECT_EQ(policy.check->begin_stage(), 300);
  EXPECT_EQ(policy.check->problem(std::nullopt), "");
}

TEST(Divergence, NoSoundLearningRateComesNearTheLimit) {
  for (const double rate : {1e-6, 1e-3, 1e-2, 0.1}) {
    double weight = 1;
    for (int64_t step = 0; step < 9000; ++step) {
      weight += rate;  // AdamW, when every gradient has the same sign
      EXPECT_EQ(state_problem(weight, 0, largest_sound_weight(1, step + 1)), "")
          << rate << " " << step;
    }
  }
  EXPECT_NE(state_problem(1 + 10, 0, largest_sound_weight(1, 1)), "");
  EXPECT_NE(state_problem(1 + 3, 0, largest_sound_weight(0.02, 1)), "");
  EXPECT_EQ(largest_sound_weight(50, 0), 150);
  EXPECT_EQ(largest_sound_weight(1, INT64_MAX), 1000);
}

TEST(Divergence, AGradientOfZeroIsOneWhereThereWasSomethingToLearn) {
  EXPECT_TRUE(is_dead_gradient(0, 2.8, true));
  EXPECT_FALSE(is_dead_gradient(1e-30, 2.8, true));
  EXPECT_FALSE(is_dead_gradient(0, 2.8, false)) << "all rewards of each prompt were equal";
  EXPECT_FALSE(is_dead_gradient(0, 0, true)) << "sure of every token, right or wrong";
  EXPECT_FALSE(is_dead_gradient(std::nan(""), std::nan(""), true)) << "a skipped one";
}

TEST(Divergence, APolicyWhoseLogProbsOverflowIsOne) {
  Policy policy;
  const auto set_sizes = [&](float size) {
    change_weights(policy.ctx, policy.model, [size](std::vector<float>& weights) {
      for (float& weight : weights) weight = std::copysign(size, weight);
    });
  };
  set_sizes(2.5F);
  policy.model.pack(policy.ctx);
  EXPECT_EQ(policy.problem(), "") << "large, but sums of it are finite";
  // Allowed in size, as the stage begins with it; but activations overflow.
  set_sizes(1e15F);
  policy.model.pack(policy.ctx);
  policy.check->begin_stage();
  EXPECT_EQ(policy.check->problem(std::nullopt), "");
  EXPECT_EQ(policy.problem(), "the log-probs that it gives are not finite");
}

TEST(Divergence, FiveSkippedStepsInARowAreTheEndOrAllOfAShorterStage) {
  EXPECT_EQ(skipped_steps_problem(4, 100), "");
  EXPECT_THAT(skipped_steps_problem(5, 100), HasSubstr("5 step(s) in a row"));
  EXPECT_EQ(skipped_steps_problem(1, 2), "");
  EXPECT_NE(skipped_steps_problem(2, 2), "");
  EXPECT_EQ(skipped_steps_problem(0, 1), "");
  EXPECT_THAT(skipped_steps_problem(5, 100, /*dead=*/true), HasSubstr("the gradient is exactly 0"));
}

TEST(Divergence, TheEndHasAnExitCodeOfItsOwnAndSaysWhatToDo) {
  try {
    end_diverged("step 606 (grpo 6)", "its weights are not finite", "actor.optim.lr");
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.exit_code(), kExitDiverged);
    EXPECT_THAT(error.what(),
                testing::StartsWith("step 606 (grpo 6): the policy has diverged: its weights"));
    EXPECT_THAT(error.what(), HasSubstr("lower actor.optim.lr"));
  }
}

}  // namespace
}  // namespace orrery::experiments
