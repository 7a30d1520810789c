// Publishes weights by version from learners to actors (placement: split). A delivery
// names its module and, for every tensor, the slice that it holds and a checksum. The
// receiver finds the slices in its own table and verifies them where they belong: what
// it does not have, or what comes damaged, is an Error that names the tensor, never a
// silently wrong policy.
#pragma once

#include <cstdint>

#include "comm/communicator.h"
#include "core/context.h"
#include "core/tensor.h"
#include "models/parameters.h"

namespace orrery::learners {

/// Collective over `comm`: rank `root` sends version and weights, others receive in
/// place and verify. Returns the version. The weights are a flat buffer of `table`; all
/// trainable tensors of its module are delivered, whole.
///
/// Tensors that follow each other in memory travel in one broadcast, with the padding
/// between them, which is zero on every rank: a broadcast waits for all ranks, so one
/// for each of the many small tensors would cost more than moving them.
uint64_t publish_weights(const Context& ctx, comm::Communicator& comm, int root, uint64_t version,
                         const models::ParameterTable& table, Vec<float> weights);

}  // namespace orrery::learners
