// Publishes weights by version from learners to actors (placement: split). Every
// delivery carries a checksum of its bytes, which the receiver verifies: a mismatch is
// an Error, never a silently wrong policy.
#pragma once

#include <cstdint>

#include "comm/communicator.h"
#include "core/context.h"
#include "core/tensor.h"

namespace orrery::learners {

/// Collective over `comm`: rank `root` sends version and weights, others receive in
/// place and verify. Returns the version.
uint64_t publish_weights(const Context& ctx, comm::Communicator& comm, int root, uint64_t version,
                         Vec<float> weights);

}  // namespace orrery::learners
