// The derivatives that the policy losses write out, by finite differences, and the bits
// of every loss whatever the layout.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "learners/objective.h"
#include "proto/config.pb.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::learners {
namespace {

using testing_support::gradient_of;
using testing_support::randomize;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::tiny_config;
using testing_support::TinyBatch;

LossToken token(float log_ratio, float advantage, float old_logp = -1.5f) {
  return {.logp = old_logp + log_ratio, .old_logp = old_logp, .advantage = advantage};
}

/// By central differences of the term's value.
template <class PolicyTermOf>
void expect_derivative(const PolicyTermOf& policy, const LossToken& at) {
  const auto value = [&](float step) {
    LossToken moved = at;
    moved.logp += step;
    return double{policy(moved).loss};
  };
  const double numeric = (value(1e-3f) - value(-1e-3f)) / 2e-3;
  EXPECT_NEAR(policy(at).dlogp, numeric, 2e-3 * std::max(1.0, std::abs(numeric)))
      << "log-ratio " << at.logp - at.old_logp << " advantage " << at.advantage;
}

TEST(LossDerivatives, OfSmoothLossesAreThoseOfTheirValues) {
  for (const float advantage : {-2.0f, 0.0f, 1.5f}) {
    for (const float log_ratio : {-3.0f, -0.4f, 0.0f, 0.3f, 1.2f}) {
      expect_derivative(Sapo{0.8f, 1.3f}, token(log_ratio, advantage));
      expect_derivative(Reinforce{}, token(log_ratio, advantage));
      expect_derivative(Dro{0.7f}, token(log_ratio, advantage));
    }
  }
  EXPECT_EQ(Sapo{}(token(-25, 1)).dlogp, 0) << "the log-ratio is bounded";
  EXPECT_FLOAT_EQ(Sapo({3, 5})(token(0, 1)).dlogp, -1) << "the policy gradient on policy";
}

TEST(LossDerivatives, OfConstantWeightsAreThoseOfTheirValuesWhereTheWeightIsConstant) {
  for (const float advantage : {-2.0f, 1.5f}) {
    for (const float log_ratio : {-3.0f, -0.4f, 0.6f, 2.0f})
      expect_derivative(Cispo{0.2f, 0.28f}, token(log_ratio, advantage));
    expect_derivative(DppoTv{1, 1, 1.2f}, token(0.6f, advantage));
    expect_derivative(DppoTv{0.01f, 0.01f, 1.2f}, token(advantage > 0 ? 0.6f : -0.6f, advantage));
    expect_derivative(DppoKl{9, 9, 1.2f}, token(0.6f, advantage));
    expect_derivative(Topr{}, token(0.6f, advantage));
  }
}

TEST(LossDerivatives, OfWeightedLossesAreTheWeightTimesTheAdvantage) {
  const auto expect_surrogate = [](const PolicyTerm& term, const LossToken& at, float weight) {
    EXPECT_FLOAT_EQ(term.dlogp, -weight * at.advantage);
    EXPECT_EQ(term.loss, term.dlogp * at.logp);
  };
  for (const float advantage : {-2.0f, 1.5f}) {
    LossToken at = token(0.1f, advantage);
    expect_surrogate(Cispo{}(at), at, std::exp(at.logp - at.old_logp));
    expect_surrogate(DppoTv{1, 1, 0}(at), at, std::exp(at.logp - at.old_logp));
    expect_surrogate(DppoKl{1, 1, 20}(at), at, std::exp(at.logp - at.old_logp));
    expect_surrogate(Reinforce{}(at), at, 1);
    at.coefficient = -0.7f;  // the sequence's log-ratio
    expect_surrogate(Topr{}(at), at, advantage < 0 ? std::exp(-0.7f) : 1);
    at.coefficient = 3;
    expect_surrogate(Topr{}(at), at, 1);
    EXPECT_EQ(Topr{}(at).terms[1], advantage < 0 ? 1 : 0) << "pg_clipfrac";
  }
}

TEST(Dppo, LeavesOutWhatGoesFurtherAndNotWhatComesBack) {
  // From 0.5 to 0.6 and to 0.4.
  const LossToken up = token(std::log(1.2f), 1, std::log(0.5f)),
                  down = token(std::log(0.8f), 1, std::log(0.5f));
  const double kl = 0.5 * std::log(0.5 / 0.6) + 0.5 * std::log(0.5 / 0.4);  // of both
  const auto is_left_out = [](const PolicyTerm& term) {
    EXPECT_EQ(term.dlogp == 0, term.terms[1] == 1);
    return term.dlogp == 0;
  };
  for (const float factor : {0.99f, 1.01f}) {
    const bool leaves = factor < 1;
    const float tv = 0.1f * factor, divergence = static_cast<float>(kl) * factor;
    for (const auto& [further, back] : {std::pair(up, down), {down, up}}) {
      LossToken there = further, here = back;
      there.advantage = here.advantage = further.logp > further.old_logp ? 1.0f : -1.0f;
      EXPECT_EQ(is_left_out(DppoTv{tv, tv, 20}(there)), leaves);
      EXPECT_EQ(is_left_out(DppoKl{divergence, divergence, 20}(there)), leaves);
      EXPECT_FALSE(is_left_out(DppoTv{tv, tv, 20}(here)));
      EXPECT_FALSE(is_left_out(DppoKl{divergence, divergence, 20}(here)));
    }
  }
}

/// The loss of a sequence, the mean over its tokens.
template <class PolicyTermOf>
double sequence_loss(const PolicyTermOf& policy, std::vector<LossToken> tokens) {
  policy.couple(tokens);
  double sum = 0;
  for (const LossToken& token : tokens) sum += policy(token).loss;
  return sum / static_cast<double>(tokens.size());
}

template <class PolicyTermOf>
void expect_sequence_derivatives(const PolicyTermOf& policy, const std::vector<LossToken>& tokens) {
  std::vector<LossToken> coupled = tokens;
  policy.couple(coupled);
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto value = [&](float step) {
      std::vector<LossToken> moved = tokens;
      moved[t].logp += step;
      return sequence_loss(policy, moved);
    };
    const double numeric = (value(4e-3f) - value(-4e-3f)) / 8e-3;
    EXPECT_NEAR(policy(coupled[t]).dlogp / static_cast<double>(tokens.size()), numeric, 5e-4)
        << "token " << t << " advantage " << tokens[t].advantage;
  }
}

TEST(LossDerivatives, OfSequenceLossesAreThoseOfTheSequencesLoss) {
  for (const float advantage : {-1.2f, 1.5f}) {
    const std::vector<LossToken> tokens = {token(0.1f, advantage), token(-0.6f, advantage),
                                           token(0.55f, advantage), token(-0.02f, advantage)};
    expect_sequence_derivatives(Gspo{0.5f, 0.5f}, tokens);
    expect_sequence_derivatives(GeoMean{0.3f, 0.4f}, tokens);
    int clipped = 0;
    std::vector<LossToken> coupled = tokens;
    GeoMean{0.3f, 0.4f}.couple(coupled);
    for (const LossToken& one : coupled) clipped += GeoMean{0.3f, 0.4f}(one).dlogp == 0 ? 1 : 0;
    EXPECT_EQ(clipped, 1) << "what has gone with the advantage, and not against it";
  }
}

Objective objective_of(proto::ActorSection::LossMode mode, double off_policy_mask_threshold) {
  proto::Config config;
  proto::ActorSection& actor = *config.mutable_actor();
  actor.set_loss_mode(mode);
  actor.set_clip_ratio_low(0.05);
  actor.set_clip_ratio_high(0.06);
  actor.set_dro_beta(0.5);
  actor.set_off_policy_mask_threshold(off_policy_mask_threshold);
  return policy_objective(config);
}

/// Every loss there is, and one with a mask.
std::vector<std::pair<std::string, Objective>> all_objectives() {
  using Actor = proto::ActorSection;
  std::vector<std::pair<std::string, Objective>> all = {
      {"masked", objective_of(Actor::VANILLA, 0.01)}};
  const auto* modes = Actor::LossMode_descriptor();
  for (int i = 0; i < modes->value_count(); ++i) {
    const auto mode = static_cast<Actor::LossMode>(modes->value(i)->number());
    all.emplace_back(modes->value(i)->name(), objective_of(mode, 0));
  }
  return all;
}

TEST(AllLosses, HaveTheSameBitsForAnyMicroBatchAndThreads) {
  const Context ctx = test_context();
  models::Transformer model(tiny_config("llama"), test_device(), DType::kF32);
  randomize(model, 4, ctx);
  const TinyBatch batch(6, model.config().vocab_size, {5, 33, 64, 1, 40}, 4);
  auto trees = batch.trees();
  std::vector<std::vector<float>> gradients;
  for (const auto& [name, objective] : all_objectives()) {
    const auto whole = gradient_of(model, objective, trees, 1 << 20);
    EXPECT_TRUE(std::isfinite(whole.sums.loss)) << name;
    for (const int64_t max_tokens : {1, 100}) {
      const auto cut = gradient_of(model, objective, trees, max_tokens, /*threads=*/3);
      EXPECT_EQ(std::memcmp(cut.gradient.data(), whole.gradient.data(),
                            whole.gradient.size() * sizeof(float)),
                0)
          << name << " budget " << max_tokens;
      EXPECT_EQ(cut.sums.loss, whole.sums.loss) << name;
    }
    for (const std::vector<float>& other : gradients)
      EXPECT_NE(other, whole.gradient) << name << " must matter";
    gradients.push_back(whole.gradient);
  }
}

}  // namespace
}  // namespace orrery::learners
