#include "learners/weight_channel.h"

#include <array>

#include "core/error.h"
#include "core/fault.h"
#include "core/transfer.h"
#include "kernels/reductions.h"

namespace orrery::learners {
namespace {

struct DeliveryHeader {
  uint64_t version, count;
  kernels::FletcherSums checksum;
};

/// Flips the lowest bit of the byte in the middle.
void flip_middle_bit(const Context& ctx, Vec<float> weights) {
  const int64_t bytes = weights.size * int64_t{sizeof(float)};
  const Vec<float> place = weights.part(bytes / 2 / int64_t{sizeof(float)}, 1);
  std::array<std::byte, sizeof(float)> value;
  download_bytes(ctx, value.data(), place.data, std::ssize(value));
  value[bytes / 2 % std::ssize(value)] ^= std::byte{1};
  upload_bytes(ctx, place.data, value.data(), std::ssize(value));
}

}  // namespace

uint64_t publish_weights(const Context& ctx, comm::Communicator& comm, int root, uint64_t version,
                         Vec<float> weights) {
  const uint64_t count = weights.size;
  DeliveryHeader header{};
  if (comm.rank() == root) header = {version, count, kernels::checksum(ctx, {.x = weights})};
  comm.broadcast(std::as_writable_bytes(std::span(&header, 1)), root);
  if (header.count != count) {
    fail(
        "weights of version {}: rank {} sends {} values but rank {} holds {}: "
        "both must load the same model",
        header.version, root, header.count, comm.rank(), count);
  }
  // What is sent is wrong, what the root keeps is right.
  const bool corrupt = fault_point(FaultPoint::kWeightsPublish) == FaultAction::kCorrupt &&
                       comm.rank() == root && !weights.empty();
  if (corrupt) flip_middle_bit(ctx, weights);
  comm.data(ctx.device).broadcast(ctx, weights, root);
  if (corrupt) flip_middle_bit(ctx, weights);
  if (comm.rank() != root) {
    const kernels::FletcherSums received = kernels::checksum(ctx, {.x = weights});
    if (received != header.checksum) {
      fail(
          "weights of version {} reached rank {} damaged: "
          "checksum {:016x}{:016x} instead of rank {}'s {:016x}{:016x}; "
          "check the memory and network of this host, then resume from the last checkpoint",
          header.version, comm.rank(), received.high, received.low, root, header.checksum.high,
          header.checksum.low);
    }
  }
  return header.version;
}

}  // namespace orrery::learners
