// Advantages against other programs' own functions in float64
// (tests/goldens/peers/make_advantages.py), and where we differ from them.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learners/advantage.h"

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

}  // namespace
}  // namespace orrery::learners
