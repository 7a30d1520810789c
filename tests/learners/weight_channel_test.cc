// A delivery of weights as it is sent, and what a rank makes of deliveries that it
// cannot take (tests/mpi/weight_channel_test.cc: between real ranks).
#include "learners/weight_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "comm/mailbox.h"
#include "core/error.h"
#include "kernels/reductions.h"
#include "tests/support/device_values.h"
#include "tests/support/random_floats.h"
#include "tests/support/tiny_config.h"

namespace orrery::learners {
namespace {

using models::ParameterTable;
using testing::StartsWith;
using testing_support::DeviceFloats;
using testing_support::test_context;
using testing_support::tiny_checkpoint_config;

/// What rank 0 has sent, for rank 1 to receive.
struct Wire {
  std::string sealed;
  std::vector<std::vector<float>> broadcasts;

  proto::WeightDelivery delivery() const {
    return comm::unseal<proto::WeightDelivery>(1, 0, sealed);
  }
};

class WirePlane final : public comm::DataPlane {
 public:
  WirePlane(Wire& wire, bool sends) : wire_(wire), sends_(sends) {}
  void broadcast(const Context& ctx, comm::DeviceArray data, int) override {
    const Vec<float> values(static_cast<float*>(data.data), data.size);
    if (sends_) {
      wire_.broadcasts.push_back(testing_support::downloaded(ctx, values));
    } else {
      upload(ctx, values, wire_.broadcasts.at(next_++));
    }
  }
  void all_reduce_sum(const Context&, comm::DeviceArray) override { fail("not asked for"); }
  void all_gather(const Context&, comm::DeviceArray, Span<const std::vector<Extent>>) override {
    fail("not asked for");
  }
  std::unique_ptr<AllToAll> all_to_all(const Context&, const AllToAllBuffers&) override {
    fail("not asked for");
  }

 private:
  Wire& wire_;
  bool sends_;
  size_t next_ = 0;
};

/// One of two ranks, one after the other: rank 0 leaves on the wire what rank 1 takes.
class WireEnd final : public comm::Communicator {
 public:
  WireEnd(Wire& wire, int rank) : wire_(wire), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  std::vector<std::string> all_gather_bytes(const std::string& mine) override {
    if (rank_ == 0) wire_.sealed = mine;
    return {wire_.sealed, ""};
  }
  void barrier() override {}
  void broadcast(std::span<std::byte>, int) override { fail("not asked for"); }
  void all_reduce_sum(std::span<double>) override { fail("not asked for"); }
  void all_reduce_max(std::span<double>) override { fail("not asked for"); }
  void send(int, int, const std::string&) override { fail("not asked for"); }
  Message receive(int, int) override { fail("not asked for"); }
  std::optional<Message> try_receive(int, int) override { fail("not asked for"); }
  void wait(const char*, const std::function<bool()>&) override { fail("not asked for"); }
  std::unique_ptr<Communicator> split(int) override { fail("not asked for"); }
  std::unique_ptr<Communicator> duplicate() override { fail("not asked for"); }

 private:
  std::unique_ptr<comm::DataPlane> make_data_plane(Device) override {
    return std::make_unique<WirePlane>(wire_, rank_ == 0);
  }
  Wire& wire_;
  int rank_;
};

Span<const float> part(const ParameterTable& table, const std::vector<float>& flat,
                       std::string_view name) {
  return table.values(Span<const float>(flat), *table.find(name));
}

class WeightChannel : public ::testing::Test {
 protected:
  const Context ctx_ = test_context();
  const ParameterTable table_{tiny_checkpoint_config()};  // qwen2: with biases, tied
  const std::vector<float> sent_ =
      testing_support::random_floats(static_cast<size_t>(table_.flat_size()), 1);
  Wire wire_;

  void send(const ParameterTable& table) {
    const DeviceFloats weights(ctx_, sent_);
    WireEnd end(wire_, 0);
    EXPECT_EQ(publish_weights(ctx_, end, 0, 7, table, weights.vec()), 7u);
    EXPECT_EQ(weights.values(), sent_);
  }
  std::vector<float> receive(const ParameterTable& table) {
    const DeviceFloats weights(ctx_,
                               std::vector<float>(static_cast<size_t>(table.flat_size()), -1));
    WireEnd end(wire_, 1);
    EXPECT_EQ(publish_weights(ctx_, end, 0, 0, table, weights.vec()), 7u);
    return weights.values();
  }
  /// The Error of rank 1, whose model is `table`'s, after `edit` of what is on the
  /// wire.
  std::string refusal(const ParameterTable& table,
                      const std::function<void(proto::WeightDelivery&)>& edit = {}) {
    send(table_);
    if (edit) {
      proto::WeightDelivery delivery = wire_.delivery();
      edit(delivery);
      wire_.sealed = comm::seal(delivery);
    }
    try {
      receive(table);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), kExitFailure);
      return error.what();
    }
    return "no error";
  }
};

TEST_F(WeightChannel, NamesEveryTensorWholeAndSendsNeighboursTogether) {
  send(table_);
  const proto::WeightDelivery delivery = wire_.delivery();
  EXPECT_EQ(delivery.version(), 7u);
  EXPECT_EQ(delivery.module(), "policy");
  ASSERT_EQ(delivery.broadcasts_size(), 1);
  const auto& slices = delivery.broadcasts(0).slices();
  ASSERT_EQ(slices.size(), std::ssize(table_.parameters()));
  for (int i = 0; i < slices.size(); ++i) {
    const models::Parameter& p = table_.parameters()[i];
    EXPECT_EQ(slices[i].tensor(), p.name);
    EXPECT_THAT(slices[i].shape(), testing::ElementsAreArray(p.shape));
    EXPECT_EQ(slices[i].begin(), 0);
    EXPECT_EQ(slices[i].end(), p.size);
  }
  const std::vector<float> received = receive(table_);
  for (const models::Parameter& p : table_.parameters()) {
    EXPECT_TRUE(std::ranges::equal(as_bytes(part(table_, received, p.name)),
                                   as_bytes(part(table_, sent_, p.name))))
        << p.name;
  }
}

TEST_F(WeightChannel, LeavesOutWhatIsNotTrainable) {
  const ParameterTable reference(tiny_checkpoint_config(), models::kReference);
  send(reference);
  EXPECT_EQ(wire_.delivery().broadcasts_size(), 0);
  const std::vector<float> received = receive(reference);
  EXPECT_EQ(std::ranges::count(received, -1.0f), std::ssize(received));
}

TEST_F(WeightChannel, TakesATensorInSlices) {
  send(table_);
  proto::WeightDelivery delivery = wire_.delivery();
  // The last tensor, as two slices in a broadcast of their own.
  auto& slices = *delivery.mutable_broadcasts(0)->mutable_slices();
  const proto::WeightSlice whole = slices[slices.size() - 1];
  slices.RemoveLast();
  const std::vector<float> values = wire_.broadcasts[0];
  wire_.broadcasts[0].resize(
      static_cast<size_t>(slices[slices.size() - 1].at() + slices[slices.size() - 1].end()));
  wire_.broadcasts.emplace_back(values.begin() + whole.at(),
                                values.begin() + whole.at() + whole.end());
  const DeviceFloats device(ctx_, wire_.broadcasts[1]);
  proto::WeightBroadcast& broadcast = *delivery.add_broadcasts();
  for (const Extent& e : {Extent{0, 5}, Extent{5, whole.end()}}) {
    proto::WeightSlice& slice = *broadcast.add_slices();
    slice = whole;
    slice.set_begin(e.begin);
    slice.set_end(e.end);
    slice.set_at(e.begin);
    const kernels::FletcherSums sums = kernels::checksum(ctx_, {.x = elements_of(device.vec(), e)});
    slice.set_checksum_low(sums.low);
    slice.set_checksum_high(sums.high);
  }
  wire_.sealed = comm::seal(delivery);
  const std::vector<float> received = receive(table_);
  for (const models::Parameter& p : table_.parameters())
    EXPECT_TRUE(std::ranges::equal(part(table_, received, p.name), part(table_, sent_, p.name)));
}

TEST_F(WeightChannel, NamesTheTensorThatCameDamaged) {
  send(table_);
  const proto::WeightDelivery delivery = wire_.delivery();
  const auto norm = std::ranges::find_if(delivery.broadcasts(0).slices(), [](const auto& slice) {
    return slice.tensor() == "model.norm.weight";
  });
  wire_.broadcasts[0][static_cast<size_t>(norm->at()) + 3] += 1;
  try {
    receive(table_);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::MatchesRegex(
                    "weights of version 7 reached rank 1 damaged: model.norm.weight has checksum "
                    "[0-9a-f]+ instead of rank 0's [0-9a-f]+; check the memory and network of "
                    "this host, then resume from the last checkpoint"));
  }
}

TEST_F(WeightChannel, RefusesWhatTheRankDoesNotHave) {
  EXPECT_EQ(refusal(ParameterTable(tiny_checkpoint_config(), {"critic", true})),
            "weights of version 7: rank 0 sends the module 'policy' but rank 1 holds 'critic': "
            "both must load the same model");
  models::ModelConfig config = tiny_checkpoint_config();
  config.qkv_bias = false;
  EXPECT_EQ(refusal(ParameterTable(config)),
            "weights of version 7: rank 0 sends model.layers.0.self_attn.q_proj.bias, which rank "
            "1's model does not have: both must load the same model");
  config = tiny_checkpoint_config();
  config.vocab_size = 36;
  EXPECT_EQ(refusal(ParameterTable(config)),
            "weights of version 7: rank 0 sends model.embed_tokens.weight of shape [37, 12] but "
            "rank 1 holds it as [36, 12]: both must load the same model");
  EXPECT_EQ(refusal(ParameterTable(tiny_checkpoint_config(2))),
            "weights of version 7: rank 1 holds model.layers.1.input_layernorm.weight, of which "
            "rank 0 sends 0 of 12 values: both must load the same model");
}

TEST_F(WeightChannel, RefusesSlicesAndPlacesThatAreNotItsOwn) {
  EXPECT_EQ(
      refusal(table_, [](auto& d) { d.mutable_broadcasts(0)->mutable_slices(0)->set_end(445); }),
      "weights of version 7: rank 0 sends elements 0 to 445 of model.embed_tokens.weight but "
      "rank 1 holds 444: all ranks must run the same orrery");
  EXPECT_EQ(
      refusal(table_, [](auto& d) { d.mutable_broadcasts(0)->mutable_slices(1)->set_at(460); }),
      "weights of version 7: rank 1 holds model.layers.0.input_layernorm.weight elsewhere in "
      "memory than rank 0, which sends it: all ranks must run the same orrery");
  EXPECT_THAT(
      refusal(table_, [](auto& d) { d.mutable_broadcasts(0)->mutable_slices(0)->set_begin(-1); }),
      StartsWith("weights of version 7: rank 0 sends elements -1 to 444"));
  // The second half twice is as many values as the tensor has.
  EXPECT_EQ(refusal(table_,
                    [](auto& d) {
                      auto& first = *d.mutable_broadcasts(0)->mutable_slices(0);
                      first.set_begin(222);
                      *d.add_broadcasts()->add_slices() = first;
                    }),
            "weights of version 7: rank 0 sends model.embed_tokens.weight from element 222 on "
            "where 0 was expected: all ranks must run the same orrery");
}

}  // namespace
}  // namespace orrery::learners
