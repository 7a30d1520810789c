// PPO's clipped policy term with the dual clip, as verl's vanilla loss (Schulman et al.
// 2017; Ye et al. 2020):
//   r = exp(clamp(logp - old_logp, -20, 20))
//   L1 = -A r,  L2 = -A clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high)
//   L = max(L1, L2)
//   A < 0 and clip_ratio_c > 0:  L = min(L, -A clip_ratio_c)
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct Ppo {
  float clip_ratio_low = 0.2f;
  float clip_ratio_high = 0.28f;
  float clip_ratio_c = 3.0f;  ///< 0: no dual clip

  static constexpr auto& kTerms = kUsualTerms;

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const float advantage = token.advantage;
    const Ratio ratio = ratio_of(token);
    const float unclipped = -advantage * ratio.value;
    const float clipped =
        -advantage * clamp_f32(ratio.value, 1.0f - clip_ratio_low, 1.0f + clip_ratio_high);
    const bool is_clipped = clipped > unclipped;
    bool is_clipped_lower = false;
    PolicyTerm term;
    term.loss = max_f32(unclipped, clipped);
    if (advantage < 0 && clip_ratio_c > 0) {
      const float bound = -advantage * clip_ratio_c;
      is_clipped_lower = term.loss > bound;
      term.loss = min_f32(term.loss, bound);
    }
    const bool differentiable = !is_clipped && !is_clipped_lower && !ratio.is_bounded;
    term.dlogp = differentiable ? unclipped : 0.0f;
    term.terms[0] = -ratio.log;
    term.terms[1] = is_clipped ? 1.0f : 0.0f;
    term.terms[2] = is_clipped_lower ? 1.0f : 0.0f;
    return term;
  }
};

}  // namespace orrery::learners
