// The ratio of a token's probability to the old one, and what a sequence's ratios come
// to together.
#pragma once

#include "kernels/scalar_math.h"
#include "learners/losses/token.h"

namespace orrery::learners {

/// exp(logp - old_logp), the log-ratio bounded to +-20 as verl does.
struct Ratio {
  float log = 0;  ///< bounded
  float value = 1;
  bool is_bounded = false;  ///< the bound holds, so that the derivative is 0
};

ORRERY_DEVICE_FN inline Ratio ratio_of(const LossToken& token) {
  constexpr float kMaxLogRatio = 20.0f;
  const float log_ratio = token.logp - token.old_logp;
  const float bounded = clamp_f32(log_ratio, -kMaxLogRatio, kMaxLogRatio);
  return {bounded, kernels::exp_f32(bounded), bounded != log_ratio};
}

/// The sum of logp - old_logp over a sequence's loss tokens: in token order and double
/// precision.
inline double log_ratio_sum(Span<const LossToken> tokens) {
  double sum = 0;
  for (const LossToken& token : tokens) sum += double{token.logp - token.old_logp};
  return sum;
}

/// Its mean over the tokens, of which there is one at least.
inline float mean_log_ratio(Span<const LossToken> tokens) {
  return static_cast<float>(log_ratio_sum(tokens) / static_cast<double>(tokens.size()));
}

}  // namespace orrery::learners
