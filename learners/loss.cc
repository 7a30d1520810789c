#include "learners/loss.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "kernels/scalar_math.h"

namespace orrery::learners {
namespace {

constexpr float kMaxLogRatio = 20.0f;
constexpr float kMaxK3 = 10.0f;

struct KlTerm {
  float value, derivative;
};

KlTerm kl_term(KlLossType type, float logp, float ref_logp) {
  const float d = ref_logp - logp;
  switch (type) {
    case KlLossType::kK1:
      return {-d, 1.0f};
    case KlLossType::kK2:
      return {0.5f * d * d, -d};
    case KlLossType::kK3:
      break;
  }
  const float bounded = std::clamp(d, -kMaxLogRatio, kMaxLogRatio);
  const float ratio = kernels::exp_f32(bounded);
  const float k3 = ratio - bounded - 1.0f;
  const bool inside = bounded == d && k3 <= kMaxK3;
  return {std::min(k3, kMaxK3), inside ? 1.0f - ratio : 0.0f};
}

}  // namespace

TokenLossTerms policy_loss(const PolicyLossParams& params, float logp, float old_logp,
                           float ref_logp, float advantage, float is_weight) {
  TokenLossTerms terms;
  const float log_ratio = logp - old_logp;
  const float bounded = std::clamp(log_ratio, -kMaxLogRatio, kMaxLogRatio);
  terms.log_ratio = bounded;
  const float ratio = kernels::exp_f32(bounded);
  const float unclipped = -advantage * ratio;
  const float clipped =
      -advantage * std::clamp(ratio, 1.0f - params.clip_ratio_low, 1.0f + params.clip_ratio_high);
  terms.clipped = clipped > unclipped;
  terms.pg_loss = std::max(unclipped, clipped);
  if (advantage < 0 && params.clip_ratio_c > 0) {
    const float bound = -advantage * params.clip_ratio_c;
    terms.clipped_lower = terms.pg_loss > bound;
    terms.pg_loss = std::min(terms.pg_loss, bound);
  }
  const bool differentiable = !terms.clipped && !terms.clipped_lower && bounded == log_ratio;
  terms.dlogp = differentiable ? unclipped * is_weight : 0.0f;
  terms.pg_loss *= is_weight;
  if (params.kl_loss_coef != 0) {
    const KlTerm kl = kl_term(params.kl_loss_type, logp, ref_logp);
    terms.kl = kl.value;
    terms.dlogp += params.kl_loss_coef * kl.derivative;
  }
  terms.dentropy = -params.entropy_coeff;
  return terms;
}

float importance_weight(float old_logp, float rollout_logp) {
  if (!std::isfinite(old_logp) || !std::isfinite(rollout_logp))
    return std::numeric_limits<float>::quiet_NaN();
  return kernels::exp_f32(std::clamp(old_logp - rollout_logp, -kMaxLogRatio, kMaxLogRatio));
}

float aggregation_weight(LossAggMode mode, int64_t sample_tokens, int64_t total_tokens,
                         int64_t samples, int64_t max_response_length) {
  if (sample_tokens == 0) return 0.0f;
  switch (mode) {
    case LossAggMode::kTokenMean:
      return static_cast<float>(1.0 / static_cast<double>(total_tokens));
    case LossAggMode::kSeqMeanTokenSum:
      return static_cast<float>(1.0 / static_cast<double>(samples));
    case LossAggMode::kSeqMeanTokenMean:
      return static_cast<float>(
          1.0 / (static_cast<double>(samples) * static_cast<double>(sample_tokens)));
    case LossAggMode::kSeqMeanTokenSumNorm:
      return static_cast<float>(
          1.0 / (static_cast<double>(samples) * static_cast<double>(max_response_length)));
  }
  fail("unknown loss_agg_mode {}", static_cast<int>(mode));
}

bool same_bits(float a, float b) {
  return !std::isnan(a) && std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

void TokenCount::add(const TokenPlace& place) {
  if (count == 0 || place.place() < first.place()) first = place;
  count += 1;
}

void TokenCount::merge(const TokenCount& o) {
  if (o.count > 0 && (count == 0 || o.first.place() < first.place())) first = o.first;
  count += o.count;
}

double max_or_nan(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
  return std::max(a, b);
}

void LogprobDifference::compare(float recomputed, float recorded) {
  const double difference =
      std::abs(std::exp(static_cast<double>(recomputed)) - std::exp(static_cast<double>(recorded)));
  probs_diff_sum += difference;
  probs_diff_square_sum += difference * difference;
  probs_diff_max = max_or_nan(probs_diff_max, difference);
  logprob_diff_max =
      max_or_nan(logprob_diff_max, std::abs(static_cast<double>(recomputed - recorded)));
}

void LogprobDifference::merge(const LogprobDifference& o) {
  probs_diff_sum += o.probs_diff_sum;
  probs_diff_square_sum += o.probs_diff_square_sum;
  probs_diff_max = max_or_nan(probs_diff_max, o.probs_diff_max);
  logprob_diff_max = max_or_nan(logprob_diff_max, o.logprob_diff_max);
}

void LossSums::add(const LossSums& o) {
  loss += o.loss;
  pg_loss += o.pg_loss;
  kl += o.kl;
  entropy += o.entropy;
  ppo_kl += o.ppo_kl;
  clipped += o.clipped;
  clipped_lower += o.clipped_lower;
  tokens += o.tokens;
  merge(o);
  mismatches.merge(o.mismatches);
  not_finite.merge(o.not_finite);
}

}  // namespace orrery::learners
