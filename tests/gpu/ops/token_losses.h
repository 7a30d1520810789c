// The losses of tokens, on the CPU and the GPU.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "tests/gpu/ops/arrays.h"
#include "tests/gpu/ops/backends.h"
#include "tests/kernels/cases/case_table.h"

namespace orrery::ops_check {

using learners::KlEstimate;
using learners::TokenEvaluation;

/// Settings of a loss, of which every one is asked about the same tokens.
struct TokenLossCase : kernels::cases::Case {
  int64_t rows;
  KlEstimate estimate = KlEstimate::kK3;
  float kl = 0, entropy = 0, dual_clip = 3, off_policy_mask = 0;
};
inline constexpr TokenLossCase kTokenLossCases[] = {
    {{"one", kernels::cases::kOracle}, 1},
    {{"k3", kernels::cases::kOracle}, 1000, KlEstimate::kK3, 0.1f, 0.01f},
    {{"k2", kernels::cases::kOracle}, 256, KlEstimate::kK2, 0.5f},
    {{"k1", kernels::cases::kOracle}, 257, KlEstimate::kK1, 0.5f, -0.3f},
    {{"abs", kernels::cases::kOracle}, 255, KlEstimate::kAbs, 0.5f},
    {{"k1_plus", kernels::cases::kOracle}, 64, KlEstimate::kK1Plus, 0.5f},
    {{"k3_plus_masked", kernels::cases::kOracle}, 500, KlEstimate::kK3Plus, 0.5f, 0, 3, 0.1f},
    {{"no_dual_clip", kernels::cases::kOracle}, 700, KlEstimate::kK3, 0, 0.2f, 0},
};

/// Log-probs that are equal, near one another, and so far apart that ratios are
/// clamped; advantages and weights of every sign and size.
inline std::vector<TokenEvaluation> random_tokens(int64_t rows, std::vector<float>& logprobs) {
  std::vector<TokenEvaluation> tokens(static_cast<size_t>(rows));
  Philox rng(21, RngPurpose::kTest);
  for (TokenEvaluation& row : tokens) {
    const float logp = -std::abs(3 * rng.normal());
    logprobs.push_back(logp);
    const float distances[] = {0, 1e-6f, 0.1f, 1, 30};
    row.token.old_logp = logp + distances[rng.below(5)] * rng.normal();
    row.token.ref_logp = logp + distances[rng.below(5)] * rng.normal();
    row.token.coefficient = distances[rng.below(5)] * rng.normal();
    row.token.advantage = rng.below(8) == 0 ? 0.0f : 2 * rng.normal();
    const float weights[] = {0, 1, std::abs(rng.normal()), std::abs(rng.normal())};
    row.token.is_weight = weights[rng.below(4)];
    row.weight = std::abs(rng.normal()) / 64;
  }
  return tokens;
}

template <class B, class Loss>
void run_token_loss(Arrays& a, const TokenLossCase& c, const Loss& loss) {
  static_assert(sizeof(TokenEvaluation) == 20 * 4, "all of it is compared, in words");
  std::vector<float> logprobs;
  const std::vector<TokenEvaluation> tokens = random_tokens(c.rows, logprobs);
  std::vector<int32_t> words(tokens.size() * 20);
  std::memcpy(words.data(), tokens.data(), words.size() * 4);
  auto* const rows = reinterpret_cast<TokenEvaluation*>(a.ids("tokens", words).data);
  B::token_loss(a.ctx(), learners::TokenLossOp<Loss>{loss,
                                                     {.logprobs = a.of("logprobs", logprobs),
                                                      .entropies = a.vec("entropies", c.rows),
                                                      .tokens = {rows, c.rows},
                                                      .dlogp = a.vec("dlogp", c.rows),
                                                      .dentropy = a.vec("dentropy", c.rows)}});
  a.step("token_loss");
}

template <class B, class PolicyTermOf>
void run_policy_loss(Arrays& a, const TokenLossCase& c, const PolicyTermOf& policy) {
  run_token_loss<B>(
      a, c,
      learners::Policy<PolicyTermOf>{policy, {c.kl, c.estimate}, c.entropy, c.off_policy_mask});
}

template <class B>
void run(Arrays& a, const TokenLossCase& c) {
  run_token_loss<B>(a, c, learners::Sft{});
  run_policy_loss<B>(a, c, learners::Ppo{.clip_ratio_c = c.dual_clip});
  run_policy_loss<B>(a, c, learners::Gspo{0.003f, 0.004f});
  run_policy_loss<B>(a, c, learners::GeoMean{0.2f, 0.3f});
  run_policy_loss<B>(a, c, learners::Cispo{});
  run_policy_loss<B>(a, c, learners::Sapo{});
  run_policy_loss<B>(a, c, learners::DppoTv{0.05f, 0.1f, c.dual_clip});
  run_policy_loss<B>(a, c, learners::DppoKl{0.01f, 0.02f, c.dual_clip});
  run_policy_loss<B>(a, c, learners::Topr{});
  run_policy_loss<B>(a, c, learners::Reinforce{});
  run_policy_loss<B>(a, c, learners::Dro{0.3f});
}

}  // namespace orrery::ops_check
