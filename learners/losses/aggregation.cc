#include "learners/losses/aggregation.h"

#include "core/error.h"

namespace orrery::learners {

float aggregation_weight(proto::ActorSection::LossAggMode mode, int64_t sample_tokens,
                         int64_t total_tokens, int64_t samples, int64_t max_response_length) {
  if (sample_tokens == 0) return 0.0f;
  const auto tokens = static_cast<double>(sample_tokens), sequences = static_cast<double>(samples);
  double divisor = 0;
  switch (mode) {
    case proto::ActorSection::TOKEN_MEAN:
      divisor = static_cast<double>(total_tokens);
      break;
    case proto::ActorSection::SEQ_MEAN_TOKEN_SUM:
      divisor = sequences;
      break;
    case proto::ActorSection::SEQ_MEAN_TOKEN_MEAN:
      divisor = sequences * tokens;
      break;
    case proto::ActorSection::SEQ_MEAN_TOKEN_SUM_NORM:
      divisor = sequences * static_cast<double>(max_response_length);
      break;
  }
  ORRERY_CHECK(divisor > 0, "loss_agg_mode {} of {} tokens and {} samples", static_cast<int>(mode),
               total_tokens, samples);
  return static_cast<float>(1.0 / divisor);
}

}  // namespace orrery::learners
