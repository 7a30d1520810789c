// What the two policy terms of DPPO have in common (Qi et al., "Rethinking the Trust
// Region in LLM Reinforcement Learning", 2026): the policy gradient with a truncated
// ratio, at the tokens that a trust region keeps. As verl's compute_policy_loss_dppo_tv
// and _kl:
//   r = exp(clamp(logp - old_logp, -20, 20)),  w = min(r, clip_ratio_c)
//   L = -w A logp where the token is kept, else 0;  dL/dlogp = -w A
// The paper's section 5.4 has a large clip_ratio_c: 20.
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

/// clip_ratio_c: 0: the ratio is not truncated.
ORRERY_DEVICE_FN inline PolicyTerm dppo_term(const LossToken& token, bool is_kept,
                                             float clip_ratio_c) {
  const Ratio ratio = ratio_of(token);
  const bool is_truncated = clip_ratio_c > 0 && ratio.value > clip_ratio_c;
  PolicyTerm term;
  if (is_kept) term.dlogp = -token.advantage * (is_truncated ? clip_ratio_c : ratio.value);
  term.loss = term.dlogp * token.logp;
  term.terms[0] = -ratio.log;
  term.terms[1] = is_kept ? 0.0f : 1.0f;
  term.terms[2] = is_kept && is_truncated ? 1.0f : 0.0f;
  return term;
}

}  // namespace orrery::learners
