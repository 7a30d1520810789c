// CISPO's policy term (MiniMax, "MiniMax-M1: Scaling Test-Time Compute Efficiently with
// Lightning Attention", 2025, equations 4 and 5), as verl's compute_policy_loss_cispo:
//   r = exp(clamp(logp - old_logp, -20, 20))
//   w = clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high)
//   L = -w A logp,  dL/dlogp = -w A
// The weight w is a constant for the gradient, so that a clipped token still has one.
// clip_ratio_low 1 leaves the lower side open, as the paper does. TRL bounds w from
// above alone, and by epsilon_high itself, not 1 + epsilon_high.
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct Cispo {
  float clip_ratio_low = 0.2f;
  float clip_ratio_high = 0.28f;

  static constexpr auto& kTerms = kUsualTerms;  ///< pg_clipfrac: w is not r

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const Ratio ratio = ratio_of(token);
    const float weight = clamp_f32(ratio.value, 1.0f - clip_ratio_low, 1.0f + clip_ratio_high);
    PolicyTerm term;
    term.dlogp = -weight * token.advantage;
    term.loss = term.dlogp * token.logp;
    term.terms[0] = -ratio.log;
    term.terms[1] = weight != ratio.value ? 1.0f : 0.0f;
    return term;
  }
};

}  // namespace orrery::learners
