// GMPO's policy term (Zhao et al., "Geometric-Mean Policy Optimization", 2025), as
// verl's compute_policy_loss_geo_mean: the geometric mean of a sequence's clipped
// ratios.
//   d = logp - old_logp
//   c = min(d, clip_ratio_high) where A > 0, max(d, -clip_ratio_low) where A < 0
//   G = exp(mean over the sequence's loss tokens of c)
//   L = -A G,  dL/dlogp = -A G where c is d, else 0
// Aggregated by seq-mean-token-mean that is the loss of the sequence and its gradient:
// each token has 1/n of G's. The clip is one-sided, of the log-ratio (the paper: 0.4
// both ways). A is one for the sequence. Importance weights of the sequence's tokens
// come in by their geometric mean, as in verl.
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct GeoMean {
  float clip_ratio_low = 0.2f;
  float clip_ratio_high = 0.28f;

  /// As in verl, both count tokens outside [-clip_ratio_low, clip_ratio_high], on
  /// either side: pg_clipfrac where A > 0, pg_clipfrac_lower where A < 0. ppo_kl is not
  /// clamped.
  static constexpr auto& kTerms = kUsualTerms;

  /// Each token's coefficient is log G.
  void couple(Span<LossToken> tokens) const {
    double sum = 0, log_weight = 0;
    for (const LossToken& token : tokens) {
      sum += double{clipped(token)};
      log_weight += double{kernels::log_f32(token.is_weight)};
    }
    const auto count = static_cast<double>(tokens.size());
    const auto coefficient = static_cast<float>(sum / count);
    const float weight = kernels::exp_f32(static_cast<float>(log_weight / count));
    for (LossToken& token : tokens) {
      token.coefficient = coefficient;
      token.is_weight = weight;
    }
  }

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    const float d = token.logp - token.old_logp;
    const bool is_outside = d != clamp_f32(d, -clip_ratio_low, clip_ratio_high);
    PolicyTerm term;
    term.loss = -token.advantage * kernels::exp_f32(token.coefficient);
    term.dlogp = clipped(token) == d ? term.loss : 0.0f;
    term.terms[0] = -d;
    term.terms[1] = is_outside && token.advantage > 0 ? 1.0f : 0.0f;
    term.terms[2] = is_outside && token.advantage < 0 ? 1.0f : 0.0f;
    return term;
  }

 private:
  ORRERY_DEVICE_FN float clipped(const LossToken& token) const {
    const float d = token.logp - token.old_logp;
    if (token.advantage > 0) return min_f32(d, clip_ratio_high);
    if (token.advantage < 0) return max_f32(d, -clip_ratio_low);
    return 0.0f;
  }
};

}  // namespace orrery::learners
