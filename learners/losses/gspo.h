// GSPO's policy term (Zheng et al., "Group Sequence Policy Optimization", 2025,
// equations 5 to 7), in the form that verl's compute_policy_loss_gspo has (the paper's
// GSPO-token with one advantage per sample):
//   log s = mean over the sequence's loss tokens of (logp - old_logp), at most 10
//   L1 = -A s,  L2 = -A clip(s, 1 - clip_ratio_low, 1 + clip_ratio_high)
//   L = max(L1, L2)
// The ratio s is the sequence's, so that all its tokens are clipped or none is where A
// has one sign. Of a token's L, s is differentiated by that token's log-prob as if s
// were its own ratio: dL/dlogp = -A s where L1 is taken. Aggregated by
// seq-mean-token-mean that is the gradient of the sequence's own loss; by
// seq-mean-token-sum each sequence counts by its length, which is LUSPO
// ("Length-Unbiased Sequence Policy Optimization", arXiv 2602.05261, 2026; TRL's
// luspo).
#pragma once

#include "learners/losses/policy.h"
#include "learners/losses/ratio.h"

namespace orrery::learners {

struct Gspo {
  float clip_ratio_low, clip_ratio_high;  ///< the paper takes 3e-4 and 4e-4

  /// As in verl: ppo_kl is not clamped, and there is no dual clip.
  static constexpr auto& kTerms = kUsualTerms;

  /// Each token's coefficient is log s of its sequence.
  static void couple(Span<LossToken> tokens) {
    const float log_ratio = mean_log_ratio(Span<const LossToken>(tokens));
    for (LossToken& token : tokens) token.coefficient = log_ratio;
  }

  ORRERY_DEVICE_FN PolicyTerm operator()(const LossToken& token) const {
    constexpr float kMaxLogRatio = 10.0f;
    const float bounded = min_f32(token.coefficient, kMaxLogRatio);
    const float ratio = kernels::exp_f32(bounded);
    const float unclipped = -token.advantage * ratio;
    const float clipped =
        -token.advantage * clamp_f32(ratio, 1.0f - clip_ratio_low, 1.0f + clip_ratio_high);
    const bool is_clipped = clipped > unclipped;
    PolicyTerm term;
    term.loss = max_f32(unclipped, clipped);
    term.dlogp = !is_clipped && bounded == token.coefficient ? unclipped : 0.0f;
    term.terms[0] = token.old_logp - token.logp;
    term.terms[1] = is_clipped ? 1.0f : 0.0f;
    return term;
  }
};

}  // namespace orrery::learners
