// The CPU's log-probs; arguments are already checked (kernels/logprob.h).
#pragma once

#include "kernels/logprob.h"

namespace orrery::kernels::cpu {

struct LogprobRow {
  float logprob, entropy, max, log_sum;
};

/// What the gradient of one row's logits is made of.
struct LogprobRowGrad {
  int64_t target;
  float max, log_sum, entropy, dlogp, dentropy, inv_temperature;
};

/// The row of the class dot16-rz25. The entropy is found where it is wanted.
LogprobRow dot16_logprob_row(const float* logits, int64_t vocab, int64_t target,
                             float inv_temperature, bool entropy);

void logprob_forward(const Context& ctx, const LogprobForward& op);
void logprob_backward(const Context& ctx, const LogprobBackward& op);

}  // namespace orrery::kernels::cpu
