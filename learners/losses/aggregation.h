// How token losses become one number: the weight of each loss token of a sample.
#pragma once

#include <cstdint>

#include "proto/config.pb.h"

namespace orrery::learners {

/// All counts are of the whole mini-batch over all ranks, so how it is cut into
/// micro-batches or ranks changes nothing. Samples without loss tokens are not counted
/// in `samples`. Weights sum to 1 over the mini-batch for the two means over tokens.
float aggregation_weight(proto::ActorSection::LossAggMode mode, int64_t sample_tokens,
                         int64_t total_tokens, int64_t samples, int64_t max_response_length);

}  // namespace orrery::learners
