// DPPO's policy term with the binary total variation (learners/losses/dppo.h), as
// verl's compute_policy_loss_dppo_tv: with p = exp(logp) and q = exp(old_logp)
//   A > 0:   kept where p - q <= clip_ratio_high
//   A <= 0:  kept where q - p <= clip_ratio_low
#pragma once

#include "learners/losses/dppo.h"

namespace orrery::learners {

struct DppoTv {
  float clip_ratio_low, clip_ratio_high;  ///< differences of probabilities
  float clip_ratio_c;

  static constexpr auto& kTerms = kUsualTerms;

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const float up = kernels::exp_f32(token.logp) - kernels::exp_f32(token.old_logp);
    const bool is_kept = token.advantage > 0 ? up <= clip_ratio_high : up >= -clip_ratio_low;
    return dppo_term(token, is_kept, clip_ratio_c);
  }
};

}  // namespace orrery::learners
