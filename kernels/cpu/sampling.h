// CPU half of kernels/sampling.h; arguments are already checked.
#pragma once

#include "core/buffer.h"
#include "core/span.h"
#include "kernels/sampling.h"

namespace orrery::kernels {

/// Tokens whose weights make one partial sum of the inverse CDF.
inline constexpr int64_t kSampleBlock = 256;
/// The most tokens whose weights in units of 2^-40 fit a 64-bit sum.
inline constexpr int64_t kMaxSamplingVocab = int64_t{1} << 22;

void sample_forward_cpu(const Context& ctx, Span<int32_t> ids, Mat<const float> logits,
                        Span<const SamplingParams> params, Span<const float> uniform, Arena& arena);

}  // namespace orrery::kernels
