// Advantages against other programs' own functions in float64
// (tests/goldens/peers/make_advantages.py), and where we differ from them.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learners/advantage.h"
#include "learners/advantages/gae.h"

namespace orrery::learners {
namespace {

using Section = proto::AlgorithmSection;

nlohmann::json goldens() {
  std::ifstream file(ORRERY_SOURCE_DIR "/tests/goldens/peers/advantages.json");
  return nlohmann::json::parse(file);
}

/// The estimator by the golden's word for it, with the batch's settings.
Section algorithm(const std::string& word, const nlohmann::json& batch) {
  Section section;
  std::string name = word == "dr-grpo" ? "grpo" : word;
  for (char& c : name) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
  Section::AdvEstimator estimator{};
  EXPECT_TRUE(Section::AdvEstimator_Parse(name, &estimator)) << name;
  section.set_adv_estimator(estimator);
  section.set_norm_adv_by_std_in_grpo(word != "dr-grpo");
  if (word == "passk") section.set_passk_k(batch["passk_k"]);
  if (word != "gdpo") return section;
  for (const auto& [part, values] : batch["parts"].items()) section.add_gdpo_reward_keys(part);
  for (const double weight : batch["weights"]) section.add_gdpo_reward_weights(weight);
  return section;
}

std::vector<GroupRewards> groups_of(const nlohmann::json& batch) {
  std::vector<GroupRewards> groups;
  for (size_t g = 0; g < batch["rewards"].size(); ++g) {
    GroupRewards& group = groups.emplace_back();
    group.prompt_index = g;
    group.rewards = batch["rewards"][g].get<std::vector<float>>();
    group.loss_tokens = batch["loss_tokens"][g].get<std::vector<int64_t>>();
    group.parts.resize(group.rewards.size());
    if (batch.contains("greedy")) group.greedy_reward = batch["greedy"][g];
    if (!batch.contains("parts")) continue;
    for (const auto& [part, values] : batch["parts"].items()) {
      for (size_t i = 0; i < group.rewards.size(); ++i) group.parts[i][part] = values[g][i];
    }
  }
  return groups;
}

/// Under these a sample without another of its prompt has advantage 0 here and in verl
/// its reward, scaled: nothing is known of how good it is, and a run has no such group.
bool single_is_zero(const std::string& word) {
  return word == "grpo" || word == "dr-grpo" || word == "rloo" || word == "opo" || word == "gpg";
}

TEST(AdvantageGoldens, AreThePeers) {
  std::map<std::string, int> compared, singles;
  const nlohmann::json all = goldens();
  for (const auto& batch : all["batches"]) {
    const std::vector<GroupRewards> groups = groups_of(batch);
    for (const auto& [word, expected] : batch["advantages"].items()) {
      const auto ours = compute_advantages(groups, algorithm(word, batch));
      for (size_t g = 0; g < groups.size(); ++g) {
        for (size_t i = 0; i < ours[g].size(); ++i) {
          if (groups[g].loss_tokens[i] == 0) continue;  // no token has it
          const double peer = expected[g][i];
          if (groups[g].rewards.size() == 1 && single_is_zero(word)) {
            EXPECT_EQ(ours[g][i], 0) << word;
            EXPECT_NE(peer, 0) << word;
            ++singles[word];
            continue;
          }
          EXPECT_NEAR(ours[g][i], peer, 1e-6 * std::abs(peer))
              << word << " of " << batch["name"] << ", group " << g << " sample " << i;
          compared[word] += peer != 0 ? 1 : 0;
        }
      }
    }
  }
  EXPECT_EQ(compared.size(), 12u) << "all estimators";
  for (const auto& [word, count] : compared) EXPECT_GT(count, 5) << word;
  EXPECT_EQ(singles.size(), 5u);
}

// verl's mean over tokens divides by their number + 1e-8. Where rewards nearly agree
// that is no longer small: of the two below verl, in float64, makes 6.46e-4 and
// -5.46e-4.
TEST(AdvantageGoldens, WhiteningOfRewardsThatNearlyAgreeIsExact) {
  const float above = 1 + 0x1p-23f;
  Section section;
  section.set_adv_estimator(Section::REINFORCE_PLUS_PLUS);
  const std::vector<GroupRewards> groups = {{0, {above, 1}, {1, 1}, {}, {}}};
  const double exact = 0x1p-24 / std::sqrt(0x1p-47 + 1e-8);
  const auto ours = compute_advantages(groups, section);
  EXPECT_NEAR(ours[0][0], exact, 1e-6 * exact);
  EXPECT_NEAR(ours[0][1], -exact, 1e-6 * exact);
  EXPECT_NEAR(exact, 5.96e-4, 1e-6);
}

TEST(Gae, IsVerls) {
  const nlohmann::json all = goldens();
  ASSERT_EQ(all["gae"].size(), 3u);
  for (const auto& golden : all["gae"]) {
    std::vector<std::vector<float>> rewards = golden["rewards"], values = golden["values"];
    std::vector<std::vector<uint8_t>> masks = golden["loss_mask"];
    std::vector<ValuedTokens> responses;
    for (size_t i = 0; i < rewards.size(); ++i)
      responses.push_back({rewards[i], values[i], masks[i]});
    const double lambda = golden["lambda"];
    const GaeResult ours = gae_advantages(responses, {golden["gamma"], lambda, lambda});
    // The critic's lambda is another's.
    const GaeResult decoupled = gae_advantages(responses, {golden["gamma"], 0.5, lambda});
    EXPECT_EQ(decoupled.returns, ours.returns);
    EXPECT_NE(decoupled.advantages, ours.advantages);
    for (size_t i = 0; i < rewards.size(); ++i) {
      ASSERT_EQ(ours.advantages[i].size(), rewards[i].size());
      for (size_t t = 0; t < rewards[i].size(); ++t) {
        const double advantage = golden["advantages"][i][t], target = golden["returns"][i][t];
        EXPECT_NEAR(ours.advantages[i][t], advantage, 1e-6 * std::abs(advantage)) << i << ' ' << t;
        EXPECT_NEAR(ours.returns[i][t], target, 1e-6 * std::abs(target)) << i << ' ' << t;
      }
    }
  }
}

// By hand: gamma 1/2, lambda 1/2; the second token is an observation, which the value
// of the third passes over.
TEST(Gae, PassesOverObservations) {
  const std::vector<float> rewards = {1, 9, 4}, values = {2, 9, 1};
  const std::vector<uint8_t> mask = {1, 0, 1};
  const ValuedTokens tokens{rewards, values, mask};
  EXPECT_EQ(gae_of(tokens, 0.5, 0.5), (std::vector<double>{1 + 0.5 * 1 - 2 + 0.25 * 3, 0, 3}));
  const GaeResult result = gae_advantages({&tokens, 1}, {0.5, 1, 0.5});
  EXPECT_EQ(result.returns[0], (std::vector<float>{2.25f, 0, 4}));
  // 1 and 3 before whitening: their mean is 2, their deviation sqrt(2).
  EXPECT_NEAR(result.advantages[0][0], -std::sqrt(0.5), 1e-6);
  EXPECT_EQ(result.advantages[0][1], 0);
  EXPECT_NEAR(result.advantages[0][2], std::sqrt(0.5), 1e-6);
}

}  // namespace
}  // namespace orrery::learners
