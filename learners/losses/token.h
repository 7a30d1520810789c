// What a loss knows of a token, what it says of it, and the metrics that it declares.
// Plain values, which the compiler of a GPU reads, too.
#pragma once

#include "core/device_fn.h"
#include "core/span.h"

namespace orrery::learners {

/// A token that is learned from. Log-probs are natural logarithms.
struct LossToken {
  float logp = 0;     ///< under the weights being trained: what is differentiated by
  float entropy = 0;  ///< nats, of the distribution that logp is of
  /// When the token was drawn, or recomputed before the first update; 0 in SFT.
  float old_logp = 0;
  float ref_logp = 0;   ///< under the reference model; 0 where there is none
  float advantage = 0;  ///< 0 in SFT
  /// Factor of the policy term and a constant for the gradient: the truncated
  /// importance weight, which couple() may replace.
  float is_weight = 1;
  /// What couple() made of the token's sequence (learners/loss.h).
  float coefficient = 0;
};

/// The most metrics that a loss may declare.
inline constexpr int kMaxTerms = 8;

/// Loss of one token and its derivatives, before the token's aggregation weight.
struct TokenLoss {
  double loss = 0;
  float dlogp = 0, dentropy = 0;
  float terms[kMaxTerms] = {};  ///< values of the loss's terms(), in that order
};

/// A token with its aggregation weight, and what a loss made of it.
struct TokenEvaluation {
  LossToken token;
  float weight = 0;
  TokenLoss loss;
};

/// How tokens' values become a metric.
enum class Mean {
  kAsLoss,      ///< summed with the aggregation weights: a part of the loss
  kOverTokens,  ///< the plain mean over loss tokens
};

/// A metric that a loss declares: actor/NAME.
struct Term {
  const char* name;
  Mean mean;
};

/// Whether a loss has a couple(), for whole sequences (learners/loss.h).
template <class T>
concept CouplesTokens = requires(const T& loss, Span<LossToken> tokens) {
  loss.couple(tokens);
};

// std::clamp, std::max and std::min for both kinds of compiler, NaNs included.
ORRERY_DEVICE_FN inline float clamp_f32(float x, float low, float high) {
  return x < low ? low : high < x ? high : x;
}
ORRERY_DEVICE_FN inline float max_f32(float a, float b) { return a < b ? b : a; }
ORRERY_DEVICE_FN inline float min_f32(float a, float b) { return b < a ? b : a; }

}  // namespace orrery::learners
