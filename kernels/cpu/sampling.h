// CPU half of kernels/sampling.h; arguments are already checked.
#pragma once

#include "core/buffer.h"
#include "core/span.h"
#include "kernels/sampling.h"

namespace orrery::kernels {

/// Tokens per partial sum of the inverse CDF without a filter.
inline constexpr int64_t kSampleBlock = 256;
/// Largest vocabulary: weights of at most 2^40 units each then sum to at most 2^62.
inline constexpr int64_t kMaxSamplingVocab = int64_t{1} << 22;

void sample_forward_cpu(const Context& ctx, Span<int32_t> ids, Mat<const float> logits,
                        Span<const SamplingParams> params, Span<const float> uniform, Arena& arena);

}  // namespace orrery::kernels
