// Samples of other numerics: recomputed, weighted and reported; the rest are trusted as
// they are.
#include "experiments/rollout_correction.h"

#include <gtest/gtest.h>

#include <cmath>

#include "comm/communicator.h"
#include "tests/learners/tiny_model.h"

namespace orrery::experiments {
namespace {

using testing_support::random_tokens;

constexpr float kTemperature = 0.9f;

/// Two prompts of three samples; log-probs are off by `error` where the fingerprint
/// says bf16.
std::vector<rollout::Group> make_groups(learners::Learner& learner,
                                        const std::vector<std::vector<bool>>& foreign,
                                        float error) {
  Philox generator(3, RngPurpose::kTest, 0);
  std::vector<rollout::Group> groups;
  std::vector<learners::Tree> trees;
  for (size_t g = 0; g < foreign.size(); ++g) {
    groups.push_back({1, g, {}});
    for (size_t i = 0; i < foreign[g].size(); ++i) {
      rollout::Trajectory t;
      t.prompt_index = g;
      t.sample_index = static_cast<uint32_t>(i);
      t.prompt_tokens =
          i == 0 ? random_tokens(generator, 7, 37) : groups[g].samples[0].prompt_tokens;
      t.tokens = random_tokens(generator, 5 + static_cast<int64_t>(i), 37);
      t.loss_mask.assign(t.tokens.size(), 1);
      t.loss_mask[1] = 0;
      t.fingerprint = rollout::fingerprint_of({}, foreign[g][i] ? DType::kBF16 : DType::kF32);
      groups[g].samples.push_back(std::move(t));
    }
  }
  for (rollout::Group& group : groups) {
    trees.push_back({group.samples.front().prompt_tokens, {}});
    for (rollout::Trajectory& t : group.samples) {
      learners::Leaf leaf;
      leaf.tokens = t.tokens;
      leaf.loss_mask = t.loss_mask;
      trees.back().leaves.push_back(leaf);
    }
  }
  const auto logprobs = learner.logprobs(trees, kTemperature);
  size_t at = 0;
  for (rollout::Group& group : groups) {
    for (rollout::Trajectory& t : group.samples) {
      t.logprobs = logprobs[at++];
      if (t.fingerprint == rollout::fingerprint_of({}, DType::kF32)) continue;
      for (size_t i = 0; i < t.logprobs.size(); ++i)
        t.logprobs[i] -= t.loss_mask[i] != 0 ? error : 0.0f;
    }
  }
  return groups;
}

struct Fixture {
  Context ctx = testing_support::test_context();
  models::Transformer model{testing_support::tiny_config("llama"), ctx.device, DType::kF32};
  std::unique_ptr<comm::Communicator> comm = comm::make_local_communicator();
  learners::Learner learner{ctx, model, *comm, {4, 30, false}};
  rollout::Fingerprint own = rollout::fingerprint_of({}, DType::kF32);
  Fixture() { testing_support::randomize(model, 5, ctx); }
};

TEST(RolloutCorrection, EqualFingerprintsAreTrusted) {
  Fixture f;
  const auto groups = make_groups(f.learner, {{false, false}, {false}}, 1.0f);
  const RolloutCorrection correction(f.learner, f.own, groups, kTemperature, 100, 2.0f);
  EXPECT_FALSE(correction.any());
  EXPECT_TRUE(correction.old_logprobs(0, 1).empty());
  EXPECT_TRUE(correction.weights(1, 0).empty());
  Metrics metrics;
  correction.write(metrics);
  EXPECT_EQ(metrics, (Metrics{{"rollout_corr/corrected_share", 0.0}}));
}

TEST(RolloutCorrection, OthersAreRecomputedAndWeighted) {
  Fixture f;
  constexpr float kError = 0.25f;
  const auto groups =
      make_groups(f.learner, {{true, false, true}, {false, false}, {false, true}}, kError);
  for (const int64_t tree_rows : {int64_t{1}, int64_t{100}}) {
    const RolloutCorrection correction(f.learner, f.own, groups, kTemperature, tree_rows, 2.0f);
    EXPECT_TRUE(correction.any());
    for (size_t g = 0; g < groups.size(); ++g) {
      for (size_t i = 0; i < groups[g].samples.size(); ++i) {
        const rollout::Trajectory& t = groups[g].samples[i];
        if (t.fingerprint == f.own) {
          EXPECT_TRUE(correction.weights(g, i).empty());
          continue;
        }
        ASSERT_EQ(correction.old_logprobs(g, i).size(), t.tokens.size());
        for (size_t k = 0; k < t.tokens.size(); ++k) {
          const bool learned = t.loss_mask[k] != 0;
          EXPECT_NEAR(correction.old_logprobs(g, i)[k], t.logprobs[k] + (learned ? kError : 0.0f),
                      1e-6);
          EXPECT_NEAR(correction.weights(g, i)[k], learned ? std::exp(kError) : 1.0, 1e-5);
        }
      }
    }
    Metrics metrics;
    correction.write(metrics);
    // Loss tokens: 4 + 5 + 6, 4 + 5, 4 + 5, of which 4 + 6 and 5 are foreign.
    EXPECT_DOUBLE_EQ(metrics["rollout_corr/corrected_share"], 15.0 / 33);
    EXPECT_NEAR(metrics["rollout_corr/rollout_is_mean"], std::exp(kError), 1e-5);
    EXPECT_NEAR(metrics["rollout_corr/rollout_is_max"], std::exp(kError), 1e-5);
    EXPECT_EQ(metrics["rollout_corr/rollout_is_clipped_share"], 0);
    EXPECT_NEAR(metrics["rollout/logprob_diff_max"], kError, 1e-6);
    EXPECT_GT(metrics["training/rollout_probs_diff_max"],
              metrics["training/rollout_probs_diff_mean"]);
    EXPECT_GT(metrics["training/rollout_probs_diff_std"], 0);
  }
}

TEST(RolloutCorrection, WeightsAreCapped) {
  Fixture f;
  const auto groups = make_groups(f.learner, {{true, true}}, 1.5f);
  const RolloutCorrection correction(f.learner, f.own, groups, kTemperature, 100, 2.0f);
  EXPECT_EQ(correction.weights(0, 0)[0], 2.0f);
  EXPECT_EQ(correction.weights(0, 0)[1], 1.0f) << "an observation token";
  Metrics metrics;
  correction.write(metrics);
  EXPECT_EQ(metrics["rollout_corr/rollout_is_clipped_share"], 1.0);
  EXPECT_NEAR(metrics["rollout_corr/rollout_is_max"], std::exp(1.5), 1e-4)
      << "before the cap, as verl reports";
}

TEST(LogprobMismatch, TextNamesThePlaceAndBothValues) {
  learners::LossSums sums;
  sums.tokens = 100;
  sums.mismatches.add({17, 2, 41, 1234, -1.5f, std::nextafter(-1.5f, 0.0f)});
  sums.mismatches.add({18, 0, 0, 1, -1.0f, -2.0f});
  const std::string text = logprob_mismatch_text(3, sums);
  EXPECT_EQ(
      text.find(
          "step 3: the log-prob recorded for prompt 17 sample 2 token 41 (id 1234) is -1.5 but the "
          "learner computes -1.49999988; it is the first of 2 such token(s) of 100 in the "
          "mini-batch"),
      0u)
      << text;
  EXPECT_NE(text.find("algorithm.verify_logprobs=false"), std::string::npos);
}

}  // namespace
}  // namespace orrery::experiments
