// The LM head fused with log-prob, entropy and loss: logits of a chunk of rows become
// log-probs, the loss's gradient, dlogits, dhidden and dW before the next chunk is
// touched. A full [rows, vocab] array never exists.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "core/buffer.h"
#include "core/context.h"
#include "core/tensor.h"
#include "kernels/matmul.h"

namespace orrery::kernels {

/// Rows of hidden [R, D] whose next token is targets [R], under softmax(logits *
/// inv_temperature) (kernels/logprob.h).
struct LmHeadRows {
  Mat<const float> hidden;
  std::span<const int32_t> targets;
  std::span<const float> inv_temperature;
};

/// logprobs [R], entropies [R] (may be empty).
void lm_head_logprob(const Context& ctx, std::span<float> logprobs, std::span<float> entropies,
                     const LmHeadRows& rows, const PackedWeight& w, Arena& arena);

/// A loss of per-token values: given log-probs and entropies of rows [begin, begin +
/// size), sets dL/dlogp and dL/dentropy for them. Called once for each chunk, chunks in
/// rising order.
using TokenLoss = std::function<void(int64_t begin, std::span<const float> logprobs,
                                     std::span<const float> entropies, std::span<float> dlogp,
                                     std::span<float> dentropy)>;

/// As lm_head_logprob, and the backward in the same pass: dhidden [R, D] is
/// overwritten, dw [vocab, D] += (chain over rows). The bits do not depend on how rows
/// are cut into chunks or calls.
void lm_head_forward_backward(const Context& ctx, std::span<float> logprobs,
                              std::span<float> entropies, Mat<float> dhidden, Mat<float> dw,
                              const LmHeadRows& rows, const PackedWeight& w, const TokenLoss& loss,
                              Arena& arena);

/// Rows of logits alive at once, of `rows`: chunks of nearly equal size, for each walks
/// through all of the weights.
int64_t lm_head_chunk_rows(int64_t vocab, int64_t rows);

}  // namespace orrery::kernels
