#include "comm/weight_channel.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/fault.h"

namespace orrery::comm {
namespace {

struct DeliveryHeader {
  uint64_t version, count;
  WeightChecksum checksum;
};

}  // namespace

// low = sum of w_i, high = sum of (n - i) w_i, both mod 2^64: Fletcher's two sums.
// Eight interleaved pairs of running sums break the chain of dependent additions;
// modular sums may be regrouped freely.
WeightChecksum weight_checksum(std::span<const float> weights) {
  constexpr size_t kLanes = 8;
  const size_t n = weights.size(), rounds = n / kLanes;
  std::array<uint64_t, kLanes> sum{}, sum_of_sums{};
  for (size_t k = 0; k < rounds; ++k) {
    std::array<uint32_t, kLanes> words;
    std::memcpy(words.data(), weights.data() + k * kLanes, sizeof words);
    for (size_t j = 0; j < kLanes; ++j) {
      sum[j] += words[j];
      sum_of_sums[j] += sum[j];
    }
  }
  WeightChecksum checksum;
  const size_t tail = n - rounds * kLanes;
  for (size_t j = 0; j < kLanes; ++j) {
    // Round k of lane j is word i = 8 k + j: n - i = 8 (rounds - k) + tail - j.
    checksum.low += sum[j];
    checksum.high += kLanes * sum_of_sums[j] + (uint64_t{tail} - uint64_t{j}) * sum[j];
  }
  for (size_t i = rounds * kLanes; i < n; ++i) {
    const uint64_t word = std::bit_cast<uint32_t>(weights[i]);
    checksum.low += word;
    checksum.high += (n - i) * word;
  }
  return checksum;
}

uint64_t publish_weights(Communicator& comm, int root, uint64_t version, std::span<float> weights) {
  DeliveryHeader header{};
  if (comm.rank() == root) header = {version, weights.size(), weight_checksum(weights)};
  comm.broadcast(std::as_writable_bytes(std::span(&header, 1)), root);
  if (header.count != weights.size()) {
    fail(
        "weights of version {}: rank {} sends {} values but rank {} holds {}: "
        "both must load the same model",
        header.version, root, header.count, comm.rank(), weights.size());
  }
  // What is sent is wrong, what the root keeps is right.
  const bool corrupt = fault_point(FaultPoint::kWeightsPublish) == FaultAction::kCorrupt &&
                       comm.rank() == root && !weights.empty();
  const auto bytes = std::as_writable_bytes(weights);
  if (corrupt) bytes[bytes.size() / 2] ^= std::byte{1};
  comm.broadcast(bytes, root);
  if (corrupt) bytes[bytes.size() / 2] ^= std::byte{1};
  if (comm.rank() != root) {
    const WeightChecksum received = weight_checksum(weights);
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

}  // namespace orrery::comm
