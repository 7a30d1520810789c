// Per-token losses: pure functions of log-probs, advantages and the like. They know no
// model and no device.
//
// policy_loss (PPO-clip with dual clip, as verl's compute_policy_loss):
//   r = exp(clamp(logp - old_logp, -20, 20))
//   L1 = -A r,  L2 = -A clip(r, 1 - clip_ratio_low, 1 + clip_ratio_high),  L = max(L1, L2)
//   A < 0 and clip_ratio_c > 0:  L = min(L, -A clip_ratio_c)                     (dual clip, Ye et al. 2020)
// Samples of an engine whose numbers are not the learner's (another fingerprint) were
// drawn from mu, not from the old policy pi_old. Their L is multiplied by the truncated
// importance weight, a constant for the gradient (Yao et al., "Your Efficient RL
// Framework Secretly Brings You Off-Policy RL Training", 2025; verl's
// rollout_is=token):
//   w = min(exp(clamp(log pi_old - log mu, -20, 20)), rollout_is_threshold)
// KL and entropy terms are not multiplied.
// KL to the reference, added with kl_loss_coef (Schulman, "Approximating KL
// divergence", 2020), d = ref_logp
// - logp:
//   k1 = -d,  k2 = d^2 / 2,  k3 = exp(d) - d - 1   (k3: d clamped to +-20, value to +-10)
// Entropy bonus: - entropy_coeff * entropy.
#pragma once

#include <cstdint>
#include <span>
#include <tuple>

namespace orrery::learners {

enum class KlLossType { kK1, kK2, kK3 };

struct PolicyLossParams {
  float clip_ratio_low = 0.2f;
  float clip_ratio_high = 0.28f;
  float clip_ratio_c = 3.0f;  ///< 0: no dual clip
  float entropy_coeff = 0.0f;
  float kl_loss_coef = 0.0f;
  KlLossType kl_loss_type = KlLossType::kK3;
};

/// Loss of one token and its derivatives, before the aggregation weight.
struct TokenLossTerms {
  float pg_loss = 0, kl = 0;
  float dlogp = 0;      ///< d(pg_loss + kl_loss_coef * kl) / dlogp
  float dentropy = 0;   ///< -entropy_coeff
  float log_ratio = 0;  ///< clamp(logp - old_logp, -20, 20)
  bool clipped = false, clipped_lower = false;
};

/// is_weight 1 leaves every bit as without it.
TokenLossTerms policy_loss(const PolicyLossParams& params, float logp, float old_logp,
                           float ref_logp, float advantage, float is_weight = 1.0f);

/// exp(old_logp - rollout_logp), the log-ratio clamped to +-20; before it is truncated.
/// NaN when one of them is not finite: such a weight must not pass for a large one.
float importance_weight(float old_logp, float rollout_logp);

/// How token losses become one number. Weights sum to 1 over the mini-batch of all
/// ranks for the two means over tokens.
enum class LossAggMode { kTokenMean, kSeqMeanTokenSum, kSeqMeanTokenMean, kSeqMeanTokenSumNorm };

/// Weight of each loss token of a sample. All counts are of the whole mini-batch over
/// all ranks, so how it is cut into micro-batches or ranks changes nothing. Samples
/// without loss tokens are not counted in `samples`.
float aggregation_weight(LossAggMode mode, int64_t sample_tokens, int64_t total_tokens,
                         int64_t samples, int64_t max_response_length);

/// A loss token of which something is wrong, with its log-prob as it was recorded (or
/// recomputed for another fingerprint) and as the learner computes it now.
struct TokenPlace {
  uint64_t prompt_index = 0;
  uint32_t sample_index = 0;
  int32_t position = 0;  ///< in the response
  int32_t token_id = 0;
  float recorded = 0, recomputed = 0;
  auto place() const { return std::tuple(prompt_index, sample_index, position); }
};

/// NaN equals nothing: a log-prob that is one is wrong on both sides.
bool same_bits(float a, float b);

/// Tokens counted, and the first of them by prompt, sample and position: the same one
/// however trees lie in shards.
struct TokenCount {
  double count = 0;
  TokenPlace first;
  void add(const TokenPlace& place);
  void merge(const TokenCount& other);
};

/// The larger one, NaN when one of them is: unlike std::max, wherever it stands.
double max_or_nan(double a, double b);

/// How far recorded log-probs are from recomputed ones, over tokens. A value that is
/// not finite makes the sums and maxima so.
struct LogprobDifference {
  double probs_diff_sum = 0, probs_diff_square_sum = 0;
  double probs_diff_max = 0, logprob_diff_max = 0;
  void compare(float recomputed, float recorded);  ///< one token more
  void merge(const LogprobDifference& other);
};

/// Sums over loss tokens in row order, for metrics; added across shards in shard order.
/// Weights are the aggregation weights, so that a weighted sum is what the loss is made
/// of.
struct LossSums : LogprobDifference {
  /// Weighted sum of pg + kl_coef * kl - entropy_coeff * entropy, or of -logp (SFT).
  double loss = 0;
  double pg_loss = 0, kl = 0, entropy = 0;            ///< weighted sums
  double ppo_kl = 0, clipped = 0, clipped_lower = 0;  ///< plain sums: of -log_ratio, of flags
  double tokens = 0;
  /// Of exact leaves: the bits differ (a NaN always does).
  TokenCount mismatches;
  /// A log-prob, advantage, weight, entropy, loss or derivative of the token is not
  /// finite.
  TokenCount not_finite;
  void add(const LossSums& other);
};

}  // namespace orrery::learners
