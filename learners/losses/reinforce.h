// The plain policy gradient (Williams, "Simple Statistical Gradient-Following
// Algorithms for Connectionist Reinforcement Learning", 1992), as verl's
// compute_policy_loss_reinforce and _gpg:
//   L = -A logp,  dL/dlogp = -A
#pragma once

#include "learners/losses/policy.h"

namespace orrery::learners {

struct Reinforce {
  static constexpr auto& kTerms = kUsualTerms;  ///< nothing is clipped

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    PolicyTerm term;
    term.dlogp = -token.advantage;
    term.loss = term.dlogp * token.logp;
    term.terms[0] = token.old_logp - token.logp;
    return term;
  }
};

}  // namespace orrery::learners
