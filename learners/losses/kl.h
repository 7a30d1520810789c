// KL divergence from the reference model, estimated at the tokens that were drawn
// (Schulman, "Approximating KL divergence", 2020), with d = ref_logp - logp:
//   k1 = -d,  k2 = d^2 / 2,  k3 = exp(d) - d - 1
// Of k3, d is clamped to +-20 and the value to +-10.
#pragma once

#include "kernels/scalar_math.h"
#include "learners/losses/token.h"

namespace orrery::learners {

enum class KlEstimate { kK1, kK2, kK3 };

/// The KL term of a loss: coefficient * estimate. 0: there is none, and no reference
/// model is asked.
struct Kl {
  float coefficient = 0;
  KlEstimate estimate = KlEstimate::kK3;
};

struct KlValue {
  float value, dlogp;
};

ORRERY_DEVICE_FN inline KlValue kl_estimate(KlEstimate estimate, float logp, float ref_logp) {
  constexpr float kMaxLogRatio = 20.0f, kMaxK3 = 10.0f;
  const float d = ref_logp - logp;
  if (estimate == KlEstimate::kK1) return {-d, 1.0f};
  if (estimate == KlEstimate::kK2) return {0.5f * d * d, -d};
  const float bounded = clamp_f32(d, -kMaxLogRatio, kMaxLogRatio);
  const float ratio = kernels::exp_f32(bounded);
  const float k3 = ratio - bounded - 1.0f;
  const bool inside = bounded == d && k3 <= kMaxK3;
  return {min_f32(k3, kMaxK3), inside ? 1.0f - ratio : 0.0f};
}

}  // namespace orrery::learners
