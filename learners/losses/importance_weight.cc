#include "learners/losses/importance_weight.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/scalar_math.h"

namespace orrery::learners {

float importance_weight(float old_logp, float rollout_logp) {
  constexpr float kMaxLogRatio = 20.0f;
  if (!std::isfinite(old_logp) || !std::isfinite(rollout_logp))
    return std::numeric_limits<float>::quiet_NaN();
  return kernels::exp_f32(std::clamp(old_logp - rollout_logp, -kMaxLogRatio, kMaxLogRatio));
}

}  // namespace orrery::learners
