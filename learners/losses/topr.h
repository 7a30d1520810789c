// TOPR's policy term (Le Roux et al., "Tapered Off-Policy REINFORCE", 2025, eq. 8):
//   A >= 0:  w = 1
//   A < 0:   w = min(the product of r over the sequence's loss tokens, 1)
//   L = -w A logp,  dL/dlogp = -w A
// The weight is a constant for the gradient. What was good is imitated wherever the
// policy has gone since; what was bad is unlearned no further than it is still likely.
// The paper's log pi is a sequence's: aggregate by seq-mean-token-sum. The peer that
// has it, ROLL, truncates each token's ratio instead of the sequence's.
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct Topr {
  static constexpr auto& kTerms = kUsualTerms;  ///< pg_clipfrac: the product is above 1

  /// Each token's coefficient is its sequence's log-ratio.
  static void couple(Span<LossToken> tokens) {
    const auto log_ratio = static_cast<float>(log_ratio_sum(Span<const LossToken>(tokens)));
    for (LossToken& token : tokens) token.coefficient = log_ratio;
  }

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const bool is_tapered = token.advantage < 0;
    const float weight = is_tapered ? kernels::exp_f32(min_f32(token.coefficient, 0.0f)) : 1.0f;
    PolicyTerm term;
    term.dlogp = -weight * token.advantage;
    term.loss = term.dlogp * token.logp;
    term.terms[0] = token.old_logp - token.logp;
    term.terms[1] = is_tapered && token.coefficient > 0 ? 1.0f : 0.0f;
    return term;
  }
};

}  // namespace orrery::learners
