// Drawing a token from a row of logits.
#pragma once

#include <cfloat>
#include <cstdint>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// How one row is sampled. temperature 0 takes the largest logit, the lowest id among
/// equals. Otherwise z = logit * (1 / temperature), and the filters apply in Hugging
/// Face's order:
///   top_k  keeps the k most probable tokens (0 or < 0: off)
///   top_p  keeps the smallest set of most probable tokens whose probability reaches
///          top_p (1: off)
///   min_p  keeps tokens with p >= min_p * max p (0: off)
/// At least one token always remains. Equal logits rank by id, the lower first.
struct SamplingParams {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

/// The smallest temperature other than 0. Below it logits over 1e32 would overflow, and
/// the draw is greedy anyway.
inline constexpr float kMinTemperature = 1e-6f;

/// 0, or a number that float32 logits can be divided by.
inline bool is_temperature(float t) { return t == 0.0f || (t >= kMinTemperature && t <= FLT_MAX); }

/// Tokens per partial sum of the inverse CDF without a filter.
inline constexpr int64_t kSampleBlock = 256;
/// Largest vocabulary: weights of at most 2^40 units each then sum to at most 2^62.
inline constexpr int64_t kMaxSamplingVocab = int64_t{1} << 22;

/// Draws a token from each row of logits. `uniform` holds numbers that the caller takes
/// from the counter RNG, so that a row's token depends on its logits, params and number
/// alone. The draw is the inverse CDF in rising id order over the kept tokens, with
/// weights p = exp(z - max z):
///   without a filter  Lanes sums of p over blocks of 256 tokens, added in order in
///                     double, choose the block; inside it p is added token by token,
///                     in double.
///   with a filter     p counts in units of 2^-40 (rounded down), so sums are exact.
///                     top_p keeps the fewest tokens in rank order that reach top_p
///                     times the sum over the tokens that top_k left; without top_k,
///                     times the sum of the blocks above.
/// A token with p = 0 is never drawn. A row with a NaN or +inf, or with no finite
/// logit, yields id -1. Throws Error for shapes.
struct SampleForward {
  Vec<int32_t> ids;         ///< [r]
  Mat<const float> logits;  ///< [r, vocab]
  /// [r], with a temperature that is_temperature, top_p and min_p in [0, 1]
  Vec<const SamplingParams> params;
  Vec<const float> uniform;  ///< [r], in [0, 1)
};
void sample_forward(const Context& ctx, const SampleForward& op);

}  // namespace orrery::kernels
