// The off-policy sequence mask (DeepSeek-V3.2, 2025, equation 9; TRL's
// off_policy_mask_threshold): a sequence that the policy has left, and whose advantage
// is negative, has no policy term.
//   kept where A >= 0, or mean of the loss tokens' (old_logp - logp) <= threshold
// It is a factor of the policy term and a constant for the gradient, as the importance
// weight is, whose place it takes. KL term and entropy bonus stay.
#pragma once

#include "learners/losses/ratio.h"

namespace orrery::learners {

/// Sets is_weight to 0 at the tokens that leave. `tokens`: of one sequence.
inline void mask_off_policy(Span<LossToken> tokens, float threshold) {
  if (-mean_log_ratio(Span<const LossToken>(tokens)) <= threshold) return;
  for (LossToken& token : tokens) {
    if (token.advantage < 0) token.is_weight = 0;
  }
}

}  // namespace orrery::learners
