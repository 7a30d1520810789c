// DPPO's policy term with the binary KL divergence (learners/losses/dppo.h), as verl's
// compute_policy_loss_dppo_kl: with p = exp(logp) and q = exp(old_logp)
//   KL = q (old_logp - logp) + (1 - q) log((1 - q + 1e-8) / (1 - p + 1e-8))
//   A > 0:   kept where KL <= clip_ratio_high or p <= q
//   A <= 0:  kept where KL <= clip_ratio_low or p >= q
#pragma once

#include "learners/losses/dppo.h"

namespace orrery::learners {

struct DppoKl {
  float clip_ratio_low, clip_ratio_high;  ///< divergences, in nats
  float clip_ratio_c;

  static constexpr auto& kTerms = kUsualTerms;

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    constexpr float kTiny = 1e-8f;
    const float p = kernels::exp_f32(token.logp), q = kernels::exp_f32(token.old_logp);
    const float kl = q * (token.old_logp - token.logp) +
                     (1.0f - q) * kernels::log_f32((1.0f - q + kTiny) / (1.0f - p + kTiny));
    const bool is_kept =
        token.advantage > 0 ? kl <= clip_ratio_high || p <= q : kl <= clip_ratio_low || p >= q;
    return dppo_term(token, is_kept, clip_ratio_c);
  }
};

}  // namespace orrery::learners
