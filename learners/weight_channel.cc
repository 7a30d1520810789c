#include "learners/weight_channel.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/mailbox.h"
#include "core/error.h"
#include "core/extent.h"
#include "core/fault.h"
#include "core/span.h"
#include "core/transfer.h"
#include "kernels/reductions.h"

namespace orrery::learners {
namespace {

/// A slice of a delivery, and its elements in this rank's memory.
struct Arrival {
  const proto::WeightSlice* slice;
  Vec<float> values;
};

kernels::FletcherSums checksum_of(const proto::WeightSlice& slice) {
  return {slice.checksum_low(), slice.checksum_high()};
}

proto::WeightDelivery make_delivery(const Context& ctx, uint64_t version,
                                    const models::ParameterTable& table, Vec<float> weights) {
  proto::WeightDelivery delivery;
  delivery.set_version(version);
  delivery.set_module(table.module().name);
  const float* begin = nullptr;  // of the broadcast that the last tensor is in
  for (const models::Parameter& parameter : table.parameters()) {
    if (!parameter.trainable) {
      begin = nullptr;  // what follows is not adjacent
      continue;
    }
    const Vec<float> values = table.values(weights, parameter);
    if (begin == nullptr) {
      delivery.add_broadcasts();
      begin = values.data;
    }
    proto::WeightSlice& slice = *delivery.mutable_broadcasts()->rbegin()->add_slices();
    slice.set_tensor(parameter.name);
    for (const int64_t size : parameter.shape) slice.add_shape(size);
    slice.set_end(parameter.size);
    slice.set_at(values.data - begin);
    const kernels::FletcherSums sums = kernels::checksum(ctx, {.x = values});
    slice.set_checksum_low(sums.low);
    slice.set_checksum_high(sums.high);
  }
  return delivery;
}

/// One rank's part in a delivery from `root`.
class Receiver {
 public:
  Receiver(int rank, int root, const proto::WeightDelivery& delivery,
           const models::ParameterTable& table, Vec<float> weights)
      : rank_(rank),
        root_(root),
        delivery_(delivery),
        table_(table),
        weights_(weights),
        found_(std::ssize(table.parameters())) {
    if (delivery.module() != table.module().name) {
      refuse("rank {} sends the module '{}' but rank {} holds '{}': both must load the same model",
             root, delivery.module(), rank, table.module().name);
    }
    for (const proto::WeightBroadcast& broadcast : delivery.broadcasts()) {
      for (const proto::WeightSlice& slice : broadcast.slices())
        arrivals_.push_back({&slice, find(slice)});
    }
    check_complete();
    std::span<const Arrival> rest = arrivals_;
    for (const proto::WeightBroadcast& broadcast : delivery.broadcasts()) {
      if (broadcast.slices().empty()) continue;
      broadcasts_.push_back(stretch_of(rest.first(broadcast.slices_size())));
      rest = rest.subspan(broadcast.slices_size());
    }
  }

  /// Memory that one broadcast after the other fills.
  const std::vector<Vec<float>>& broadcasts() const { return broadcasts_; }
  const std::vector<Arrival>& arrivals() const { return arrivals_; }

  void verify(const Context& ctx) const {
    for (const auto& [slice, values] : arrivals_) {
      const kernels::FletcherSums received = kernels::checksum(ctx, {.x = values}),
                                  sent = checksum_of(*slice);
      if (received == sent) continue;
      fail(
          "weights of version {} reached rank {} damaged: {} has checksum {:016x}{:016x} "
          "instead of rank {}'s {:016x}{:016x}; "
          "check the memory and network of this host, then resume from the last checkpoint",
          delivery_.version(), rank_, slice->tensor(), received.high, received.low, root_,
          sent.high, sent.low);
    }
  }

 private:
  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> how, Args&&... args) const {
    fail("weights of version {}: {}", delivery_.version(),
         fmt::format(how, std::forward<Args>(args)...));
  }

  /// The memory that the broadcast of these slices fills.
  Vec<float> stretch_of(std::span<const Arrival> arrivals) const {
    Vec<float> stretch(arrivals.front().values.data, 0);
    for (const auto& [slice, values] : arrivals) {
      if (values.data - stretch.data != slice->at() || slice->at() < stretch.size) {
        refuse(
            "rank {} holds {} elsewhere in memory than rank {}, which sends it: "
            "all ranks must run the same orrery",
            rank_, slice->tensor(), root_);
      }
      stretch.size = slice->at() + values.size;
    }
    return stretch;
  }

  Vec<float> find(const proto::WeightSlice& slice) {
    const models::Parameter* parameter = table_.find(slice.tensor());
    if (parameter == nullptr) {
      refuse("rank {} sends {}, which rank {}'s model does not have: both must load the same model",
             root_, slice.tensor(), rank_);
    }
    if (!std::ranges::equal(parameter->shape, slice.shape())) {
      refuse(
          "rank {} sends {} of shape [{}] but rank {} holds it as [{}]: "
          "both must load the same model",
          root_, slice.tensor(), fmt::join(slice.shape(), ", "), rank_,
          fmt::join(parameter->shape, ", "));
    }
    if (slice.begin() < 0 || slice.begin() > slice.end() || slice.end() > parameter->size) {
      refuse(
          "rank {} sends elements {} to {} of {} but rank {} holds {}: "
          "all ranks must run the same orrery",
          root_, slice.begin(), slice.end(), slice.tensor(), rank_, parameter->size);
    }
    int64_t& found = found_[parameter - table_.parameters().data()];
    if (slice.begin() != found) {
      refuse(
          "rank {} sends {} from element {} on where {} was expected: "
          "all ranks must run the same orrery",
          root_, slice.tensor(), slice.begin(), found);
    }
    found = slice.end();
    return elements_of(table_.values(weights_, *parameter), {slice.begin(), slice.end()});
  }

  /// An Error where a tensor of this rank would keep the weights of another version.
  void check_complete() const {
    for (int64_t i = 0; i < found_.size(); ++i) {
      const models::Parameter& parameter = table_.parameters()[i];
      if (!parameter.trainable || found_[i] == parameter.size) continue;
      refuse(
          "rank {} holds {}, of which rank {} sends {} of {} values: "
          "both must load the same model",
          rank_, parameter.name, root_, found_[i], parameter.size);
    }
  }

  int rank_, root_;
  const proto::WeightDelivery& delivery_;
  const models::ParameterTable& table_;
  Vec<float> weights_;
  std::vector<Vec<float>> broadcasts_;
  std::vector<Arrival> arrivals_;
  Array<int64_t> found_;  // of each tensor of the table: its elements [0, found) come
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
                         const models::ParameterTable& table, Vec<float> weights) {
  const int rank = comm.rank();
  std::string mine;
  if (rank == root) mine = comm::seal(make_delivery(ctx, version, table, weights));
  std::vector<std::string> all = comm.all_gather_bytes(mine);
  const auto delivery = comm::unseal<proto::WeightDelivery>(rank, root, std::move(all[root]));
  const Receiver receiver(rank, root, delivery, table, weights);
  // What is sent is wrong, what the root keeps is right.
  const bool corrupt = fault_point(FaultPoint::kWeightsPublish) == FaultAction::kCorrupt &&
                       rank == root && !receiver.arrivals().empty();
  const auto flip = [&] {
    if (corrupt) flip_middle_bit(ctx, receiver.arrivals()[receiver.arrivals().size() / 2].values);
  };
  flip();
  for (const Vec<float> values : receiver.broadcasts())
    comm.data(ctx.device).broadcast(ctx, values, root);
  flip();
  if (rank != root) receiver.verify(ctx);
  return delivery.version();
}

}  // namespace orrery::learners
