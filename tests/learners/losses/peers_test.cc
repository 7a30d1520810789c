// The policy losses and KL estimates against verl's, TRL's and ROLL's own functions
// (tests/goldens/peers/make_policy_losses.py): values, derivatives and metrics.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "learners/losses/aggregation.h"
#include "learners/losses/kl.h"
#include "learners/losses/ratio.h"
#include "learners/objective.h"
#include "tests/learners/tiny_gradient.h"

namespace orrery::learners {
namespace {

const nlohmann::json& goldens() {
  static const auto parsed = nlohmann::json::parse(
      std::ifstream(ORRERY_SOURCE_DIR "/tests/goldens/peers/policy_losses.json"));
  return parsed;
}

/// An enum's value by its word in YAML.
template <class Enum>
Enum value_of(std::string word, bool (*parse)(const std::string&, Enum*)) {
  for (char& c : word) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  Enum value{};
  EXPECT_TRUE(parse(word, &value)) << word;
  return value;
}

/// As the config has it, so that the line which chooses the loss is tested, too.
proto::Config config_of(const nlohmann::json& golden) {
  proto::Config config;
  proto::ActorSection& actor = *config.mutable_actor();
  const std::string loss = golden["loss"], mode = golden["loss_agg_mode"];
  actor.set_loss_mode(
      value_of<proto::ActorSection::LossMode>(loss, [](const std::string& word, auto* value) {
        return proto::ActorSection::LossMode_Parse(word, value);
      }));
  actor.set_loss_agg_mode(
      value_of<proto::ActorSection::LossAggMode>(mode, [](const std::string& word, auto* value) {
        return proto::ActorSection::LossAggMode_Parse(word, value);
      }));
  for (const auto& [key, value] : golden["settings"].items()) {
    const auto* field = proto::ActorSection::descriptor()->FindFieldByName(key);
    actor.GetReflection()->SetDouble(&actor, field, value);
  }
  return config;
}

/// A sequence's loss tokens, and where they stand in it.
struct Sequence {
  std::vector<LossToken> tokens;
  std::vector<size_t> places;
  double furthest = 0;  ///< the largest |log-ratio|
};

std::vector<Sequence> sequences_of(const nlohmann::json& batch, bool weighted) {
  std::vector<Sequence> sequences;
  for (size_t i = 0; i < batch["mask"].size(); ++i) {
    Sequence& sequence = sequences.emplace_back();
    for (size_t t = 0; t < batch["mask"][i].size(); ++t) {
      if (batch["mask"][i][t] == 0) continue;
      LossToken token;
      token.logp = batch["logprobs"][i][t];
      token.old_logp = batch["old_logprobs"][i][t];
      token.advantage = batch["advantages"][i];
      if (weighted) token.is_weight = batch["is_weights"][i][t];
      sequence.tokens.push_back(token);
      sequence.places.push_back(t);
      sequence.furthest =
          std::max(sequence.furthest, std::abs(double{token.logp} - double{token.old_logp}));
    }
  }
  return sequences;
}

/// What one golden case is compared with.
class PeerCase {
 public:
  explicit PeerCase(const nlohmann::json& golden)
      : golden_(golden),
        config_(config_of(golden)),
        loss_(policy_objective(config_).loss),
        sequences_(
            sequences_of(goldens()["batches"][golden["batch"].get<size_t>()], golden["weighted"])) {
    for (const Sequence& sequence : sequences_) {
      all_tokens_ += std::ssize(sequence.tokens);
      learned_ += sequence.tokens.empty() ? 0 : 1;
    }
  }

  void compare() {
    double value = 0, tolerance = 0;
    for (size_t i = 0; i < sequences_.size(); ++i) compare_sequence(i, value, tolerance);
    if (trl_is_beyond_the_bound_) return;
    EXPECT_NEAR(value, golden_["value"].get<double>() * peer_factor(), tolerance + 1e-9);
    for (const auto& [name, expected] : golden_["metrics"].items()) {
      const double ours = terms_[name] / static_cast<double>(all_tokens_);
      EXPECT_NEAR(ours, expected, 1e-6 * std::max(1.0, std::abs(expected.get<double>()))) << name;
    }
  }

 private:
  /// verl's geo_mean divides by all sequences, those without a loss token among them,
  /// and does not look at loss_agg_mode. Ours are not counted, as in every other loss
  /// of either program.
  double peer_factor() const {
    if (golden_["loss"] != "geo-mean") return 1;
    return static_cast<double>(sequences_.size()) / static_cast<double>(learned_);
  }

  /// Float32 has an exponent's absolute error as the relative one of its exp: a
  /// log-ratio's, or of what is summed over a sequence.
  double relative(const Sequence& sequence, const LossToken& token) const {
    if (golden_["loss"] == "topr")
      return 1e-6 * (1 + sequence.furthest * static_cast<double>(sequence.tokens.size()));
    if (golden_["loss"] == "gspo" || golden_["loss"] == "geo-mean")
      return 1e-6 * (1 + sequence.furthest);
    return 1e-6 * (1 + std::abs(double{token.logp} - double{token.old_logp}));
  }

  void compare_sequence(size_t i, double& value, double& tolerance) {
    const auto& dlogprobs = golden_["dlogprobs"][i];
    Sequence& sequence = sequences_[i];
    double unmasked = 0;
    for (const double expected : dlogprobs) unmasked += expected != 0 ? 1 : 0;
    EXPECT_LE(unmasked, static_cast<double>(sequence.tokens.size()));
    if (sequence.tokens.empty()) return;
    if (loss_->is_coupled()) loss_->couple(sequence.tokens);
    const std::vector<TokenLoss> losses = testing_support::losses_of(*loss_, sequence.tokens);
    const double weight =
        aggregation_weight(config_.actor().loss_agg_mode(), std::ssize(sequence.tokens),
                           all_tokens_, learned_, std::ssize(dlogprobs));
    for (size_t t = 0; t < losses.size(); ++t) {
      const LossToken& token = sequence.tokens[t];
      const double bound = relative(sequence, token), expected = dlogprobs[sequence.places[t]];
      value += weight * losses[t].loss;
      tolerance += bound * weight * std::abs(losses[t].loss);
      // TRL has no bound on a log-ratio. verl's holds here, and beyond it the
      // derivative is 0.
      if (golden_["peer"] == "TRL" && golden_["loss"] != "gspo" && ratio_of(token).is_bounded) {
        EXPECT_EQ(losses[t].dlogp, 0);
        trl_is_beyond_the_bound_ = true;
        continue;
      }
      // Where a gate is shut its last digits are those of exp(-r), and nobody's
      // concern.
      const double least = 1e-5 * weight * std::abs(double{token.advantage});
      EXPECT_NEAR(weight * losses[t].dlogp, expected * peer_factor(),
                  bound * std::max(std::abs(expected), least))
          << "sequence " << i << " token " << t << " logp " << token.logp << " old "
          << token.old_logp << " advantage " << token.advantage;
      for (int64_t term = 0; term < loss_->terms().size(); ++term)
        terms_[loss_->terms()[term].name] += losses[t].terms[term];
    }
  }

  const nlohmann::json& golden_;
  proto::Config config_;
  std::shared_ptr<const Loss> loss_;
  std::vector<Sequence> sequences_;
  int64_t all_tokens_ = 0, learned_ = 0;
  bool trl_is_beyond_the_bound_ = false;
  std::map<std::string, double> terms_;
};

TEST(PeerLosses, AgreeInValuesDerivativesAndMetrics) {
  std::set<std::string> modes;
  int masked = 0;
  for (const auto& golden : goldens()["cases"]) {
    SCOPED_TRACE(golden["peer"].get<std::string>() + "'s " + golden["loss"].get<std::string>() +
                 " of batch " + golden["batch"].dump() + " weighted " + golden["weighted"].dump());
    PeerCase(golden).compare();
    modes.insert(golden["loss"]);
    masked += golden["settings"].contains("off_policy_mask_threshold") ? 1 : 0;
  }
  EXPECT_EQ(static_cast<int>(modes.size()),
            proto::ActorSection::LossMode_descriptor()->value_count())
      << "every loss has a peer";
  EXPECT_EQ(masked, 3);
}

TEST(PeerLosses, TheBatchesReachWhatTheyAreFor) {
  double furthest = 0;
  int zero_advantages = 0, single_tokens = 0, empty = 0;
  for (const auto& batch : goldens()["batches"]) {
    for (const Sequence& sequence : sequences_of(batch, false)) {
      furthest = std::max(furthest, sequence.furthest);
      single_tokens += sequence.tokens.size() == 1 ? 1 : 0;
      empty += sequence.tokens.empty() ? 1 : 0;
      zero_advantages += !sequence.tokens.empty() && sequence.tokens[0].advantage == 0 ? 1 : 0;
    }
  }
  EXPECT_GE(furthest, 24.999);
  EXPECT_GE(zero_advantages, 3);
  EXPECT_GE(single_tokens, 6);
  EXPECT_EQ(empty, 1);
}

TEST(PeerLosses, TheOffPolicyMaskTakesWholeSequencesOfNegativeAdvantage) {
  // TRL's rows of batch 1 whose derivatives are all 0 are those that it masked or
  // clipped.
  Policy<Ppo> loss;
  loss.off_policy_mask_threshold = 0.02f;
  int kept = 0, left = 0;
  for (Sequence& sequence : sequences_of(goldens()["batches"][1], false)) {
    double mean = 0;
    for (const LossToken& token : sequence.tokens) mean += token.old_logp - token.logp;
    mean /= static_cast<double>(sequence.tokens.size());
    loss.couple(sequence.tokens);
    const bool leaves = sequence.tokens[0].advantage < 0 && mean > 0.02;
    for (const LossToken& token : sequence.tokens) EXPECT_EQ(token.is_weight, leaves ? 0 : 1);
    EXPECT_EQ(loss(sequence.tokens[0]).terms[4], leaves ? 1 : 0) << "off_policy_masked";
    (leaves ? left : kept) += 1;
  }
  EXPECT_GT(left, 0);
  EXPECT_GT(kept, 0);
}

TEST(PeerLosses, KlEstimatesAgree) {
  const std::map<std::string, KlEstimate> kinds = {
      {"k1", KlEstimate::kK1},   {"k2", KlEstimate::kK2},      {"k3", KlEstimate::kK3},
      {"abs", KlEstimate::kAbs}, {"k1+", KlEstimate::kK1Plus}, {"k3+", KlEstimate::kK3Plus}};
  ASSERT_EQ(goldens()["kl"].size(), kinds.size());
  for (const auto& golden : goldens()["kl"]) {
    const std::string kind = golden["kind"];
    for (size_t i = 0; i < golden["logprobs"].size(); ++i) {
      const float logp = golden["logprobs"][i], ref_logp = golden["ref_logprobs"][i];
      const KlValue ours = kl_estimate(kinds.at(kind), logp, ref_logp);
      const double value = golden["values"][i], derivative = golden["dlogprobs"][i];
      // k3 and its derivative are differences of numbers near 1.
      const double bound = 1e-6 * (1 + std::abs(double{logp} - double{ref_logp}));
      EXPECT_NEAR(ours.value, value, bound * std::max(1.0, std::abs(value))) << kind << ' ' << i;
      EXPECT_NEAR(ours.dlogp, derivative, bound * std::max(1.0, std::abs(derivative)))
          << kind << ' ' << i;
    }
  }
}

}  // namespace
}  // namespace orrery::learners
