// A policy-gradient loss: a policy term (ppo.h and its like), the KL term and the
// entropy bonus.
//   loss = is_weight * policy term + kl.coefficient * KL estimate
//          - entropy_coeff * entropy
// The importance weight is a constant for the gradient, and multiplies the policy term
// alone.
#pragma once

#include <vector>

#include "learners/losses/kl.h"
#include "learners/losses/token.h"

namespace orrery::learners {

/// The most metrics of a policy term's own.
inline constexpr int kMaxPolicyTerms = kMaxTerms - 2;

/// Policy term of one token, before the importance weight.
struct PolicyTerm {
  float loss = 0, dlogp = 0;
  float terms[kMaxPolicyTerms] = {};  ///< values of its kTerms, in that order
};

/// PolicyTermOf: a struct of settings that declares its metrics in kTerms and whose
/// operator() gives the PolicyTerm of a LossToken. It may have a static couple(), too
/// (learners/loss.h).
template <class PolicyTermOf>
struct Policy {
  PolicyTermOf policy;
  Kl kl;
  float entropy_coeff = 0;

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
    int at = 0;
    result.terms[at++] = pg_loss;
    for (int i = 0; i < kOwnTerms; ++i) result.terms[at++] = term.terms[i];
    result.terms[at] = divergence.value;
    return result;
  }

  /// actor/kl_loss is there where the loss has a KL term.
  std::vector<Term> terms() const {
    std::vector<Term> all = {{"pg_loss", Mean::kAsLoss}};
    for (const Term& term : PolicyTermOf::kTerms) all.push_back(term);
    if (kl.coefficient != 0) all.push_back({"kl_loss", Mean::kAsLoss});
    return all;
  }
  bool uses_reference() const { return kl.coefficient != 0; }
  static void couple(Span<const LossToken> tokens,
                     Span<float> coefficients) requires CouplesTokens<PolicyTermOf> {
    PolicyTermOf::couple(tokens, coefficients);
  }

 private:
  static constexpr int kOwnTerms = sizeof(PolicyTermOf::kTerms) / sizeof(Term);
  static_assert(kOwnTerms <= kMaxPolicyTerms);
  // Another couple() would never be called, and nobody would hear of it.
  static_assert(
      !requires { &PolicyTermOf::couple; } || CouplesTokens<PolicyTermOf>,
      "couple() must be static, of the arguments that CouplesTokens names");
};

}  // namespace orrery::learners
