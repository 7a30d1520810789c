// Log-probability of a token and entropy of the distribution it was drawn from, from a
// row of logits.
// The policy is softmax(z), z_j = logit_j * (1 / temperature) (one rounded product;
// temperature 1 multiplies by 1): this is the only definition, used by the engine and
// by the learner (docs/numerics.md).
//   m = max z;  s = lanes sum of exp(z_j - m);  log p_j = (z_j - m) - log s
//   entropy = log s - (lanes sum, with fma, of exp(z_j - m) * (z_j - m)) / s   [nats]
// In the class dot16-rz25 both sums are of blocks of 128 tokens (docs/numerics.md).
#pragma once

#include <cstdint>

#include "core/context.h"
#include "core/span.h"
#include "core/tensor.h"
#include "kernels/numerics.h"

namespace orrery::kernels {

/// Throws Error for a target outside the vocabulary and an inverse temperature that is
/// not a positive number, naming the row. What the ops below require of device memory
/// is checked with this, before it is uploaded.
void check_logprob_rows(Span<const int32_t> targets, Span<const float> inv_temperature,
                        int64_t vocab);

/// A logit of -inf is a token of probability 0. A row with a NaN or +inf, or with no
/// finite logit, gives NaN (the caller decides what that means). Throws Error for
/// shapes.
struct LogprobForward {
  Vec<float> logprobs;      ///< [r]
  Vec<float> entropies{};   ///< [r] or empty
  Vec<float> max{};         ///< [r] or empty: m
  Vec<float> log_sum{};     ///< [r] or empty: log s
  Mat<const float> logits;  ///< [r, vocab]
  /// [r], in the vocabulary. -1, which sample_forward gives where no token can be
  /// drawn, is read as 0: the log-prob of such a row is NaN whatever its target.
  Vec<const int32_t> targets;
  Vec<const float> inv_temperature;  ///< [r], positive
  NumericsClass numerics = NumericsClass::kF32Chain;
};
void logprob_forward(const Context& ctx, const LogprobForward& op);

/// The gradient of the logits, given dL/dlogp and dL/dentropy:
///   dz_j = dlogp * (1[j = t] - p_j) - dentropy * p_j * (log p_j + H)
///   dlogit_j = dz_j * (1 / temperature)
/// in float32 fma(dlogp, 1[j = t] - p_j, -((dentropy * p_j) * (log p_j + H))), with
/// p_j = exp(log p_j). Where p_j is multiplied by it, a z_j - m of -inf counts as the
/// lowest finite number, so that a token of probability 0 gets 0. A row whose dlogp and
/// dentropy are both 0 (a masked token) becomes 0, whatever its logits. Throws Error
/// for shapes and types.
struct LogprobBackward {
  ActMat dlogits;                    ///< [r, vocab], f32 or bf16; may be the logits
  Mat<const float> logits;           ///< [r, vocab]
  Vec<const int32_t> targets;        ///< [r], in the vocabulary
  Vec<const float> max, log_sum;     ///< [r]
  Vec<const float> entropies{};      ///< [r]; read only where dentropy is given
  Vec<const float> dlogp;            ///< [r]
  Vec<const float> dentropy{};       ///< [r]; empty: 0
  Vec<const float> inv_temperature;  ///< [r], positive
};
void logprob_backward(const Context& ctx, const LogprobBackward& op);

}  // namespace orrery::kernels
