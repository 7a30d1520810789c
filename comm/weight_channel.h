// Publishes weights by version from learners to actors (placement: split). Every
// delivery carries a checksum of its bytes, which the receiver verifies: a mismatch is
// an Error, never a silently wrong policy.
#pragma once

#include <cstdint>
#include <span>

#include "comm/communicator.h"
#include "core/context.h"
#include "core/tensor.h"

namespace orrery::comm {

/// A checksum of the bits of floats: two 64-bit sums over 32-bit words, as Fletcher's.
/// Does not depend on threads; runs at about the speed of memory.
struct WeightChecksum {
  uint64_t low = 0, high = 0;
  bool operator==(const WeightChecksum&) const = default;
};
WeightChecksum weight_checksum(std::span<const float> weights);
/// Of weights in device memory; downloads them in pieces where the host cannot read
/// them.
WeightChecksum weight_checksum(const Context& ctx, Vec<const float> weights);

/// Collective over `comm`: rank `root` sends version and weights, others receive in
/// place and verify. Returns the version.
uint64_t publish_weights(const Context& ctx, Communicator& comm, int root, uint64_t version,
                         Vec<float> weights);

}  // namespace orrery::comm
