// Log-probability of a token and entropy of the distribution it was drawn from, from a
// row of logits.
// The policy is softmax(z), z_j = logit_j * (1 / temperature) (one rounded product;
// temperature 1 multiplies by 1): this is the only definition, used by the engine and
// by the learner (docs/numerics.md).
//   m = max z;  s = lanes sum of exp(z_j - m);  lse = m + log s;  logp_t = z_t - lse
//   entropy = lse - (lanes sum, with fma, of exp(z_j - m) * z_j) / s          [nats]
#pragma once

#include <span>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

/// logits [r, vocab]; targets, logprobs, entropies, lse: [r]; inv_temperature: [r].
/// entropies and lse may be empty. A logit of -inf is a token of probability 0. A row
/// with a NaN or +inf, or with no finite logit, gives NaN (the caller decides what that
/// means). Throws Error for shapes, targets outside the vocabulary and inverse
/// temperatures that are not positive.
void logprob_forward(const Context& ctx, std::span<float> logprobs, std::span<float> entropies,
                     std::span<float> lse, Mat<const float> logits,
                     std::span<const int32_t> targets, std::span<const float> inv_temperature);

/// In place: logits [r, vocab] become dlogits, given dL/dlogp [r] and dL/dentropy [r]
/// (may be empty: 0):
///   dz_j = dlogp * (1[j = t] - p_j) - dentropy * p_j * (z_j - lse + H)
///   dlogit_j = dz_j * (1 / temperature)
/// in float32 fma(dlogp, 1[j = t] - p_j, -((dentropy * p_j) * ((z_j - lse) + H))). A
/// row whose dlogp and dentropy are both 0 (a masked token) becomes 0, whatever its
/// logits. `entropies` is read only where dentropy is given.
void logprob_backward(const Context& ctx, Mat<float> logits, std::span<const int32_t> targets,
                      std::span<const float> lse, std::span<const float> entropies,
                      std::span<const float> dlogp, std::span<const float> dentropy,
                      std::span<const float> inv_temperature);

}  // namespace orrery::kernels
