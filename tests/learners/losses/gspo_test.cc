// GSPO against verl's own function (tests/goldens/make_gspo.py), and through a model.
#include "learners/losses/gspo.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learners/losses/aggregation.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::learners {
namespace {

using testing_support::gradient_of;
using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;
using testing_support::TinyBatch;

/// What a loss says of some sequences, aggregated as verl does.
struct Outcome {
  double loss = 0, ppo_kl = 0, clipfrac = 0;
  std::vector<std::vector<double>> dlogprobs;
};

Outcome evaluate(const nlohmann::json& golden) {
  const auto loss =
      make_loss(Policy<Gspo>{{golden["clip_ratio_low"], golden["clip_ratio_high"]}, {}, 0});
  const auto& mask = golden["mask"];
  const auto sequences = static_cast<int64_t>(mask.size());
  Outcome result;
  double all_tokens = 0;
  for (size_t i = 0; i < mask.size(); ++i) {
    std::vector<LossToken> tokens;
    for (size_t t = 0; t < mask[i].size(); ++t) {
      if (mask[i][t] == 0) continue;
      LossToken token;
      token.logp = golden["logprobs"][i][t];
      token.old_logp = golden["old_logprobs"][i][t];
      token.advantage = golden["advantages"][i];
      if (!golden["is_weights"].is_null()) token.is_weight = golden["is_weights"][i][t];
      tokens.push_back(token);
    }
    loss->couple(tokens);
    const std::vector<TokenLoss> losses = testing_support::losses_of(*loss, tokens);
    const float weight = aggregation_weight(proto::ActorSection::SEQ_MEAN_TOKEN_MEAN,
                                            static_cast<int64_t>(tokens.size()), 0, sequences, 0);
    auto& dlogprobs = result.dlogprobs.emplace_back();
    size_t next = 0;
    for (const auto& bit : mask[i]) {
      if (bit == 0) {
        dlogprobs.push_back(0);
        continue;
      }
      const TokenLoss& one = losses[next++];
      result.loss += weight * one.loss;
      result.ppo_kl += one.terms[1];
      result.clipfrac += one.terms[2];
      EXPECT_EQ(one.terms[3], 0) << "verl's pg_clipfrac_lower";
      all_tokens += 1;
      dlogprobs.push_back(weight * one.dlogp);
    }
  }
  result.ppo_kl /= all_tokens;
  result.clipfrac /= all_tokens;
  return result;
}

TEST(Gspo, IsVerls) {
  std::ifstream file(ORRERY_SOURCE_DIR "/tests/goldens/gspo.json");
  const auto goldens = nlohmann::json::parse(file);
  ASSERT_EQ(goldens.size(), 4u);
  int clipped_cases = 0, free_cases = 0;
  for (const auto& golden : goldens) {
    const Outcome ours = evaluate(golden);
    const double loss = golden["loss"];
    EXPECT_NEAR(ours.loss, loss, 2e-6 * std::max(1.0, std::abs(loss)));
    EXPECT_NEAR(ours.ppo_kl, golden["metrics"]["actor/ppo_kl"], 1e-6);
    EXPECT_NEAR(ours.clipfrac, golden["metrics"]["actor/pg_clipfrac"], 1e-7);
    for (size_t i = 0; i < ours.dlogprobs.size(); ++i) {
      for (size_t t = 0; t < ours.dlogprobs[i].size(); ++t) {
        const double expected = golden["dlogprobs"][i][t];
        EXPECT_NEAR(ours.dlogprobs[i][t], expected, 2e-6 * std::abs(expected)) << i << ' ' << t;
      }
    }
    (ours.clipfrac > 0 ? clipped_cases : free_cases) += 1;
  }
  EXPECT_GT(clipped_cases, 0);
  EXPECT_GT(free_cases, 0);
}

/// Wide enough that finite differences see no kink.
Objective wide_objective() {
  return {.loss = make_loss(Policy<Gspo>{{0.9f, 0.9f}, {}, 0.05f}), .temperature = 0.8f};
}

TEST(Gspo, GradientOfAModelMatchesFiniteDifferences) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config("qwen3"), test_device(), DType::kF32);
  randomize(model, 3, ctx);
  const TinyBatch batch(5, model.config().vocab_size, {9, 35}, 3);
  auto trees = batch.trees();
  // seq-mean-token-mean: the weight of a token is 1 over its sample's loss tokens (and
  // a factor).
  for (Tree& tree : trees) {
    for (Leaf& leaf : tree.leaves) leaf.weight = 0.5f / static_cast<float>(leaf.loss_tokens());
  }
  const Objective objective = wide_objective();
  const auto result = gradient_of(model, objective, trees, 1 << 20);
  EXPECT_EQ(testing_support::term_sum(result.sums, "pg_clipfrac"), 0);
  testing_support::expect_finite_differences(model, objective, trees, result.gradient);
}

TEST(Gspo, SameBitsForAnyMicroBatchAndThreads) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config("llama"), test_device(), DType::kF32);
  randomize(model, 4, ctx);
  const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40}, 4);
  auto trees = batch.trees();
  const auto whole = gradient_of(model, wide_objective(), trees, 1 << 20);
  for (const int64_t max_tokens : {1, 100, 333}) {
    const auto cut = gradient_of(model, wide_objective(), trees, max_tokens, /*threads=*/3);
    EXPECT_EQ(std::memcmp(cut.gradient.data(), whole.gradient.data(),
                          whole.gradient.size() * sizeof(float)),
              0)
        << "budget " << max_tokens;
    EXPECT_EQ(cut.sums.loss, whole.sums.loss);
  }
}

}  // namespace
}  // namespace orrery::learners
