// Samples of an engine whose numbers are not the learner's (another fingerprint) were
// drawn from mu, not from the old policy pi_old. The policy term of their tokens is
// multiplied by the truncated importance weight, a constant for the gradient (Yao et
// al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025;
// verl's rollout_is=token):
//   w = min(exp(clamp(log pi_old - log mu, -20, 20)), rollout_is_threshold)
#pragma once

namespace orrery::learners {

/// exp(old_logp - rollout_logp), the log-ratio clamped to +-20; before it is truncated.
/// NaN when one of them is not finite: such a weight must not pass for a large one.
float importance_weight(float old_logp, float rollout_logp);

}  // namespace orrery::learners
