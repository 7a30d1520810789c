// KL divergence from the reference model, estimated at the tokens that were drawn
// (Schulman, "Approximating KL divergence", 2020), with d = ref_logp - logp:
//   k1 = -d,  abs = |d|,  k2 = d^2 / 2,  k3 = exp(d) - d - 1
// Of k3, d is clamped to +-20 and the value to +-10. As verl's kl_penalty, whose k1+
// and k3+ are k1_plus and k3_plus here: the value of k1 and k3, and the gradient of k2.
// On average over tokens of the policy, k1's gradient is 0 and k3's that of another
// divergence, whereas k2's is the divergence's own.
#pragma once

#include "kernels/scalar_math.h"
#include "learners/losses/token.h"

namespace orrery::learners {

enum class KlEstimate { kK1, kK2, kK3, kAbs, kK1Plus, kK3Plus };

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
  if (estimate == KlEstimate::kK1Plus) return {-d, -d};
  if (estimate == KlEstimate::kK2) return {0.5f * d * d, -d};
  if (estimate == KlEstimate::kAbs) return {d < 0 ? -d : d, d < 0 ? 1.0f : d > 0 ? -1.0f : 0.0f};
  const float bounded = clamp_f32(d, -kMaxLogRatio, kMaxLogRatio);
  const float ratio = kernels::exp_f32(bounded);
  const float k3 = ratio - bounded - 1.0f;
  if (estimate == KlEstimate::kK3Plus) return {min_f32(k3, kMaxK3), -d};
  const bool inside = bounded == d && k3 <= kMaxK3;
  return {min_f32(k3, kMaxK3), inside ? 1.0f - ratio : 0.0f};
}

}  // namespace orrery::learners
