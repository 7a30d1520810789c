// A policy-gradient loss: a policy term (ppo.h and its like), the KL term and the
// entropy bonus.
//   loss = is_weight * policy term + kl.coefficient * KL estimate
//          - entropy_coeff * entropy
// The importance weight is a constant for the gradient, and multiplies the policy term
// alone. The off-policy sequence mask makes it 0.
#pragma once

#include <vector>

#include "learners/losses/kl.h"
#include "learners/losses/off_policy_mask.h"
#include "learners/losses/token.h"

namespace orrery::learners {

/// The most metrics of a policy term's own.
inline constexpr int kMaxPolicyTerms = kMaxTerms - 3;

/// What metrics.jsonl has of every policy loss: kTerms of those that have no more.
/// Where there is nothing to count the value stays 0.
inline constexpr Term kUsualTerms[] = {{"ppo_kl", Mean::kOverTokens},
                                       {"pg_clipfrac", Mean::kOverTokens},
                                       {"pg_clipfrac_lower", Mean::kOverTokens}};

/// Policy term of one token, before the importance weight.
struct PolicyTerm {
  float loss = 0, dlogp = 0;
  float terms[kMaxPolicyTerms] = {};  ///< values of its kTerms, in that order
};

/// PolicyTermOf: a struct of settings that declares its metrics in kTerms and whose
/// operator() gives the PolicyTerm of a LossToken. It may have a couple(), too
/// (learners/loss.h).
template <class PolicyTermOf>
struct Policy {
  PolicyTermOf policy;
  Kl kl;
  float entropy_coeff = 0;
  float off_policy_mask_threshold = 0;  ///< 0: no sequence is masked

  ORRERY_DEVICE_FN TokenLoss operator()(const LossToken& token) const {
    const PolicyTerm term = policy(token);
    const float pg_loss = term.loss * token.is_weight;
    TokenLoss result;
    result.dlogp = term.dlogp * token.is_weight;
    result.dentropy = -entropy_coeff;
    KlValue divergence{0, 0};
    if (kl.coefficient != 0) {
      divergence = kl_estimate(kl.estimate, token.logp, token.ref_logp);
      result.dlogp += kl.coefficient * divergence.dlogp;
    }
    result.loss = double{pg_loss} + double{kl.coefficient} * double{divergence.value} +
                  double{result.dentropy} * double{token.entropy};
    result.terms[0] = pg_loss;
    for (int i = 0; i < kOwnTerms; ++i) result.terms[1 + i] = term.terms[i];
    // The last one is not declared without a mask. Places that depend on settings would
    // put the terms into a GPU's memory.
    const float masked = token.is_weight == 0 ? 1.0f : 0.0f;
    result.terms[1 + kOwnTerms] = off_policy_mask_threshold > 0 ? masked : divergence.value;
    result.terms[2 + kOwnTerms] = divergence.value;
    return result;
  }

  /// actor/off_policy_masked and actor/kl_loss are there where the loss has a mask and
  /// a KL term.
  std::vector<Term> terms() const {
    std::vector<Term> all = {{"pg_loss", Mean::kAsLoss}};
    for (const Term& term : PolicyTermOf::kTerms) all.push_back(term);
    if (off_policy_mask_threshold > 0) all.push_back({"off_policy_masked", Mean::kOverTokens});
    if (kl.coefficient != 0) all.push_back({"kl_loss", Mean::kAsLoss});
    return all;
  }
  bool uses_reference() const { return kl.coefficient != 0; }
  bool is_coupled() const { return CouplesTokens<PolicyTermOf> || off_policy_mask_threshold > 0; }
  void couple(Span<LossToken> tokens) const {
    if constexpr (CouplesTokens<PolicyTermOf>) policy.couple(tokens);
    if (off_policy_mask_threshold > 0) mask_off_policy(tokens, off_policy_mask_threshold);
  }

 private:
  static constexpr int kOwnTerms = sizeof(PolicyTermOf::kTerms) / sizeof(Term);
  static_assert(kOwnTerms <= kMaxPolicyTerms);
  // Another couple() would never be called, and nobody would hear of it.
  static_assert(
      !requires { &PolicyTermOf::couple; } || CouplesTokens<PolicyTermOf>,
      "couple() must be const and take what CouplesTokens names");
};

}  // namespace orrery::learners
