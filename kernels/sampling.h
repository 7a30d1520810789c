// Drawing a token from a row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "core/buffer.h"
#include "core/context.h"
#include "core/tensor.h"

namespace orrery {

/// How one row is sampled. temperature 0: the largest logit, lowest id first among equals.
/// Otherwise z = logit * (1 / temperature), and the filters apply in Hugging Face's order: top_k (0 or < 0:
/// off), then top_p (1: off; the smallest set of most probable tokens whose probability reaches top_p), then
/// min_p (0: off; keeps tokens with p >= min_p * max p). At least one token always remains; equal logits rank
/// by lower id.
struct SamplingParams {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
};

/// ids [r] from logits [r, vocab]. uniform [r]: draws in [0, 1), from the counter RNG (the caller's), so that
/// a row's token depends on its logits, params and draw alone. Inverse CDF in rising id order over the kept
/// tokens; partial sums are a sequence of plain adds per block of 16 lanes in a fixed order. A row with NaN
/// logits yields id -1. `arena`: temporaries.
void sample_forward(const Context& ctx, std::span<int32_t> ids, Mat<const float> logits,
                    std::span<const SamplingParams> params, std::span<const float> uniform, Arena& arena);

}  // namespace orrery
