// DRO's policy term (Richemond et al., "Offline Regularised Reinforcement Learning for
// Large Language Models Alignment", 2024), as verl's compute_policy_loss_dro: the
// policy gradient, drawn back to the old policy by a quadratic penalty.
//   d = logp - old_logp
//   L = -A logp + dro_beta d^2 / 2,  dL/dlogp = -A + dro_beta d
// The paper's critic is the advantage's baseline here, and its tau is dro_beta.
#pragma once

#include "learners/losses/policy.h"

namespace orrery::learners {

struct Dro {
  float dro_beta;

  static constexpr auto& kTerms = kUsualTerms;  ///< nothing is clipped

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const float d = token.logp - token.old_logp;
    PolicyTerm term;
    term.loss = 0.5f * dro_beta * d * d - token.advantage * token.logp;
    term.dlogp = dro_beta * d - token.advantage;
    term.terms[0] = -d;
    return term;
  }
};

}  // namespace orrery::learners
