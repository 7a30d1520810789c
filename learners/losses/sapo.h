// SAPO's policy term (Gao et al., "Soft Adaptive Policy Optimization", 2025), as verl's
// compute_policy_loss_sapo: a smooth gate of the ratio takes the place of the clip.
//   r = exp(clamp(logp - old_logp, -20, 20)),  tau = tau_pos where A > 0, else tau_neg
//   g = sigmoid(tau (r - 1)) 4 / tau
//   L = -A g,  dL/dlogp = -A 4 s (1 - s) r  with s the sigmoid
// At r = 1 the gradient is the policy gradient's, -A, whatever tau is. The paper and
// verl aggregate by seq-mean-token-mean.
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct Sapo {
  float tau_pos = 1.0f;
  float tau_neg = 1.05f;

  static constexpr auto& kTerms = kUsualTerms;  ///< nothing is clipped

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const Ratio ratio = ratio_of(token);
    const float tau = token.advantage > 0 ? tau_pos : tau_neg;
    const float x = tau * (ratio.value - 1.0f);
    // By exp(-|x|), which never overflows, and s (1 - s) without a difference that
    // cancels.
    const float e = kernels::exp_f32(x < 0 ? x : -x);
    const float inverse = 1.0f / (1.0f + e);
    const float sigmoid = x < 0 ? e * inverse : inverse;
    PolicyTerm term;
    term.loss = -token.advantage * (sigmoid * (4.0f / tau));
    term.dlogp =
        ratio.is_bounded ? 0.0f : -token.advantage * (4.0f * e * inverse * inverse * ratio.value);
    term.terms[0] = -ratio.log;
    return term;
  }
};

}  // namespace orrery::learners
