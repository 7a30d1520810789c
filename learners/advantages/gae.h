// Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, equation
// 16) over a response's loss tokens: with t' the loss token after t,
//   delta_t = r_t + gamma V_t' - V_t,  A_t = delta_t + gamma lambda A_t'.
// A critic's targets A_t + V_t are made with a lambda of their own (decoupled GAE: Yuan
// et al. 2025, VC-PPO, arXiv 2503.01491; VAPO, arXiv 2504.05118). As in verl, an
// environment's observations are passed over, and advantages are whitened over the loss
// tokens of the batch, targets are not.
#pragma once

#include "core/error.h"
#include "learners/advantages/whitening.h"

namespace orrery::learners {

/// A response: one entry a token.
struct ValuedTokens {
  std::span<const float> rewards, values;
  std::span<const uint8_t> loss_mask;
};

struct GaeSettings {
  double gamma = 1;
  double lambda = 1;         ///< of the advantages
  double critic_lambda = 1;  ///< of the critic's targets
};

/// One entry a token, 0 at those without a loss.
struct GaeResult {
  std::vector<std::vector<float>> advantages;
  std::vector<std::vector<float>> returns;  ///< the critic's targets
};

/// A_t of every loss token, before any whitening.
inline std::vector<double> gae_of(const ValuedTokens& tokens, double gamma, double lambda) {
  ORRERY_CHECK(tokens.rewards.size() == tokens.loss_mask.size() &&
                   tokens.values.size() == tokens.loss_mask.size(),
               "{} rewards and {} values of {} tokens", tokens.rewards.size(), tokens.values.size(),
               tokens.loss_mask.size());
  std::vector<double> result(tokens.loss_mask.size(), 0.0);
  double next_value = 0, next = 0;
  for (int64_t t = std::ssize(tokens.loss_mask) - 1; t >= 0; --t) {
    if (tokens.loss_mask[t] == 0) continue;
    const double value = tokens.values[t];
    next = tokens.rewards[t] + gamma * next_value - value + gamma * lambda * next;
    next_value = value;
    result[t] = next;
  }
  return result;
}

inline GaeResult gae_advantages(std::span<const ValuedTokens> responses,
                                const GaeSettings& settings) {
  GaeResult result;
  std::vector<std::vector<CountedValue>> values;
  for (const ValuedTokens& tokens : responses) {
    auto& row = values.emplace_back();
    auto mask = tokens.loss_mask.begin();
    for (const double a : gae_of(tokens, settings.gamma, settings.lambda))
      row.push_back({a, *mask++ != 0 ? 1.0 : 0.0});
    auto& targets = result.returns.emplace_back(row.size(), 0.0f);
    const auto critic = gae_of(tokens, settings.gamma, settings.critic_lambda);
    for (size_t t = 0; t < row.size(); ++t) {
      if (row[t].tokens > 0) targets[t] = advantage_of(critic[t] + tokens.values[t]);
    }
  }
  result.advantages = whitened(values);
  return result;
}

}  // namespace orrery::learners
