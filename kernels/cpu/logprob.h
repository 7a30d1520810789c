// CPU half of kernels/logprob.h; arguments are already checked.
#pragma once

#include <span>

#include "core/context.h"
#include "core/tensor.h"

namespace orrery::kernels {

struct LogprobRow {
  float logprob, entropy, lse;
};

/// What the gradient of one row's logits is made of.
struct LogprobRowGrad {
  int64_t target;
  float lse, entropy, dlogp, dentropy, inv_temperature;
};

void logprob_forward_cpu(const Context& ctx, std::span<float> logprobs, std::span<float> entropies,
                         std::span<float> lse, Mat<const float> logits,
                         std::span<const int32_t> targets, std::span<const float> inv_temperature);

/// `entropies` and `dentropy` may both be empty.
void logprob_backward_cpu(const Context& ctx, Mat<float> logits, std::span<const int32_t> targets,
                          std::span<const float> lse, std::span<const float> entropies,
                          std::span<const float> dlogp, std::span<const float> dentropy,
                          std::span<const float> inv_temperature);

}  // namespace orrery::kernels
