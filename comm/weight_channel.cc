#include "comm/weight_channel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "core/error.h"
#include "core/fault.h"
#include "core/span.h"
#include "core/transfer.h"

namespace orrery::comm {
namespace {

struct DeliveryHeader {
  uint64_t version, count;
  WeightChecksum checksum;
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

// The words of a piece that starts at `begin` count once more in `high` for each word
// after the piece.
WeightChecksum weight_checksum(const Context& ctx, Vec<const float> weights) {
  if (ctx.device.type == DeviceType::kCpu)
    return weight_checksum(std::span(weights.data, weights.size));
  constexpr int64_t kPiece = int64_t{1} << 20;
  Array<float> piece(std::min(kPiece, weights.size));
  WeightChecksum all;
  for (int64_t begin = 0; begin < weights.size; begin += kPiece) {
    const int64_t count = std::min(kPiece, weights.size - begin);
    const Span<float> words = Span<float>(piece).first(count);
    download(ctx, words, weights.part(begin, count));
    const WeightChecksum part = weight_checksum(words);
    const uint64_t after = weights.size - begin - count;
    all.low += part.low;
    all.high += part.high + after * part.low;
  }
  return all;
}

uint64_t publish_weights(const Context& ctx, Communicator& comm, int root, uint64_t version,
                         Vec<float> weights) {
  const uint64_t count = weights.size;
  DeliveryHeader header{};
  if (comm.rank() == root) header = {version, count, weight_checksum(ctx, weights)};
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
    const WeightChecksum received = weight_checksum(ctx, weights);
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
