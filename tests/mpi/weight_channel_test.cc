// Weights from one rank to all: by version, module, tensor and slice.
#include "learners/weight_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "models/config.h"
#include "tests/mpi/world.h"
#include "tests/support/device_values.h"
#include "tests/support/random_floats.h"
#include "tests/support/tiny_config.h"

namespace orrery {
namespace {

using models::ParameterTable;
using testing::StartsWith;
using testing_support::DeviceFloats;
using testing_support::random_floats;
using testing_support::test_context;
using testing_support::tiny_checkpoint_config;
using testing_support::world;

bool same_bits(Span<const float> a, Span<const float> b) {
  return std::ranges::equal(as_bytes(a), as_bytes(b));
}

/// A data plane that flips one bit of what is broadcast to one rank.
class DamagingPlane final : public comm::DataPlane {
 public:
  DamagingPlane(comm::DataPlane& inner, bool damages) : inner_(inner), damages_(damages) {}
  void broadcast(const Context& ctx, comm::DeviceArray data, int root) override {
    inner_.broadcast(ctx, data, root);
    if (!damages_) return;
    std::byte* place = static_cast<std::byte*>(data.data) + 777;
    std::byte value{};
    download_bytes(ctx, &value, place, 1);
    value ^= std::byte{4};
    upload_bytes(ctx, place, &value, 1);
  }
  void all_reduce_sum(const Context& ctx, comm::DeviceArray data) override {
    inner_.all_reduce_sum(ctx, data);
  }
  void all_gather(const Context& ctx, comm::DeviceArray all,
                  Span<const std::vector<Extent>> owned) override {
    inner_.all_gather(ctx, all, owned);
  }
  std::unique_ptr<AllToAll> all_to_all(const Context& ctx,
                                       const AllToAllBuffers& buffers) override {
    return inner_.all_to_all(ctx, buffers);
  }

 private:
  comm::DataPlane& inner_;
  bool damages_;
};

/// A link that flips one bit of the weights on their way to one rank.
class DamagingLink final : public comm::Communicator {
 public:
  DamagingLink(comm::Communicator& inner, int victim) : inner_(inner), victim_(victim) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void barrier() override { inner_.barrier(); }
  void broadcast(std::span<std::byte> data, int root) override { inner_.broadcast(data, root); }
  void all_reduce_sum(std::span<double> data) override { inner_.all_reduce_sum(data); }
  void all_reduce_max(std::span<double> data) override { inner_.all_reduce_max(data); }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    return inner_.all_gather_bytes(mine);
  }
  void send(int destination, int tag, const std::string& bytes) override {
    inner_.send(destination, tag, bytes);
  }
  Message receive(int source, int tag) override { return inner_.receive(source, tag); }
  std::optional<Message> try_receive(int source, int tag) override {
    return inner_.try_receive(source, tag);
  }
  void wait(const char* operation, const std::function<bool()>& done) override {
    inner_.wait(operation, done);
  }
  std::unique_ptr<comm::Communicator> split(int color) override { return inner_.split(color); }
  std::unique_ptr<comm::Communicator> duplicate() override { return inner_.duplicate(); }

 private:
  std::unique_ptr<comm::DataPlane> make_data_plane(Device device) override {
    return std::make_unique<DamagingPlane>(inner_.data(device), rank() == victim_);
  }

  comm::Communicator& inner_;
  int victim_;
};

TEST(WeightChannel, DeliversByVersionAndNoticesOneWrongBit) {
  comm::Communicator& comm = world();
  const ParameterTable table(tiny_checkpoint_config(3));
  const auto expected = random_floats(table.flat_size(), 1);
  const std::vector<float> none(expected.size());
  const int victim = comm.size() - 1;
  const Context ctx = test_context();
  const DeviceFloats weights(ctx, comm.rank() == 0 ? expected : none);
  const auto publish = [&](comm::Communicator& link, uint64_t version) {
    return learners::publish_weights(ctx, link, 0, version, table, weights.vec());
  };
  EXPECT_EQ(publish(comm, comm.rank() == 0 ? 41 : 0), 41u);
  const std::vector<float> received = weights.values();
  for (const models::Parameter& p : table.parameters()) {
    EXPECT_TRUE(same_bits(table.values(Span<const float>(received), p),
                          table.values(Span<const float>(expected), p)))
        << p.name;
  }

  if (victim == 0) return;
  DamagingLink link(comm, victim);
  std::string error;
  try {
    publish(link, 42);
  } catch (const Error& e) {
    error = e.what();
  }
  if (comm.rank() == victim) {
    EXPECT_THAT(error, StartsWith(fmt::format("weights of version 42 reached rank {} damaged: "
                                              "model.embed_tokens.weight has checksum ",
                                              victim)));
  } else {
    EXPECT_EQ(error, "");
  }
  comm.barrier();
}

}  // namespace
}  // namespace orrery
