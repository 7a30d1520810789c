// What goes wrong on one rank is told on all, and what is damaged on its way is
// noticed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "comm/mailbox.h"
#include "core/error.h"
#include "core/fault.h"
#include "experiments/checkpoint_writer.h"
#include "experiments/on_all_ranks.h"
#include "learners/ordered_reducer.h"
#include "learners/weight_channel.h"
#include "tests/mpi/world.h"
#include "tests/support/device_values.h"
#include "tests/support/scratch.h"
#include "tests/support/tiny_config.h"

namespace orrery {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing_support::DeviceFloats;
using testing_support::error_of;
using testing_support::world;

class MpiFaultTest : public testing::Test {
 protected:
  MpiFaultTest() { set_fault_rank(world().rank()); }
  ~MpiFaultTest() override {
    arm_faults("");
    set_fault_rank(0);
  }
};

TEST_F(MpiFaultTest, ADamagedMessageIsNoticed) {
  comm::Communicator& comm = world();
  const int next = (comm.rank() + 1) % comm.size(),
            previous = (comm.rank() + comm.size() - 1) % comm.size();
  comm::Mailbox mailbox(comm);
  proto::GroupsMessage groups;
  groups.add_groups()->set_prompt_index(7);
  arm_faults("trajectory.send:corrupt;lease.send:corrupt@2");
  mailbox.send(next, groups);
  EXPECT_THAT(error_of([&] { mailbox.receive<proto::GroupsMessage>(previous); }),
              HasSubstr(fmt::format("damaged groups message from rank {}", previous)));
  mailbox.send(next, groups);
  EXPECT_EQ(mailbox.receive<proto::GroupsMessage>(previous).groups(0).prompt_index(), 7u);
  proto::Lease lease;
  lease.add_prompt_index(9);
  mailbox.send(next, lease);
  mailbox.send(next, lease);
  EXPECT_EQ(mailbox.receive<proto::Lease>(previous).prompt_index(0), 9u);
  EXPECT_THAT(error_of([&] { mailbox.receive<proto::Lease>(previous); }),
              HasSubstr("damaged lease message"));

  arm_faults("trajectory.send:corrupt,rank=0");
  const std::string sealed = comm.all_gather_bytes(comm::seal(groups)).front();
  EXPECT_THAT(error_of([&] { comm::unseal<proto::GroupsMessage>(comm.rank(), 0, sealed); }),
              HasSubstr("damaged groups message from rank 0"));
  EXPECT_THAT(error_of([&] { comm::unseal<proto::GroupsMessage>(comm.rank(), 0, ""); }),
              HasSubstr("damaged"));
  comm.barrier();
}

TEST_F(MpiFaultTest, DamagedWeightsAreNoticedAndTheRootsStayRight) {
  comm::Communicator& comm = world();
  const models::ParameterTable table(testing_support::tiny_checkpoint_config());
  const std::vector<float> expected(static_cast<size_t>(table.flat_size()), 0.5f);
  const Context ctx = testing_support::test_context();
  const DeviceFloats weights(ctx, expected);
  arm_faults("weights.publish:corrupt");
  const std::string problem =
      error_of([&] { learners::publish_weights(ctx, comm, 0, 3, table, weights.vec()); });
  if (comm.rank() == 0) {
    EXPECT_EQ(problem, "no error");
    EXPECT_EQ(weights.values(), expected);
  } else {
    EXPECT_THAT(problem, HasSubstr(fmt::format("weights of version 3 reached rank {} damaged",
                                               comm.rank())));
  }
  learners::publish_weights(ctx, comm, 0, 4, table, weights.vec());
  EXPECT_EQ(weights.values(), expected);
}

TEST_F(MpiFaultTest, WaitingForDataOfARankThatHasComeIsWaiting) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const int late = comm.size() - 1;
  const auto longest_wait = [&](const auto& operation) {
    std::atomic<bool> done = false;
    double longest = 0;
    std::thread watcher([&] {
      for (; !done; std::this_thread::sleep_for(std::chrono::milliseconds(1)))
        longest = std::max(longest, comm.waiting().seconds);
    });
    comm.barrier();
    operation();
    done = true;
    watcher.join();
    return longest;
  };
  double value[1] = {1};
  const Context ctx = testing_support::test_context();
  comm::DataPlane& plane = comm.data(ctx.device);
  const DeviceFloats data(ctx, std::vector<float>(100, 1.0f));
  const Vec<float> all = data.vec();
  const std::vector<std::function<void()>> operations = {
      [&] { comm.all_gather_bytes("mine"); }, [&] { comm.all_reduce_max(value); },
      [&] { plane.all_reduce_sum(ctx, all); }, [&] { plane.broadcast(ctx, all, late); }};
  arm_faults(fmt::format("collective.move:slow,rank={}", late));  // 100 ms
  for (const auto& operation : operations) {
    const double waited = longest_wait(operation);
    EXPECT_TRUE(comm.rank() == late || waited > 0.05) << waited;
  }
  comm.barrier();
}

TEST_F(MpiFaultTest, ASaveFailsOnAllRanksOrOnNone) {
  comm::Communicator& comm = world();
  const testing_support::ScratchFolder mine_alone;
  const fs::path folder(comm.all_gather_bytes(mine_alone.path().string()).front());
  const models::ModelConfig config = models::parse_model_config(
      R"({"model_type": "qwen2", "hidden_size": 12, "intermediate_size": 20,
      "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 37,
      "max_position_embeddings": 64, "eos_token_id": 2})",
      "tiny");
  const models::ParameterTable table(config);
  const std::vector<Extent> extents =
      learners::plan_slices(table.flat_size(), 16, comm.size()).extents(comm.rank());
  const std::vector<float> all(static_cast<size_t>(table.flat_size()), 1.5f),
      mine(static_cast<size_t>(total_size(extents)), 1.5f);
  const Context ctx = testing_support::test_context();
  const DeviceFloats weights(ctx, all), moments(ctx, mine);
  storage::CheckpointInfo info = testing_support::checkpoint_info(0, config);
  {
    experiments::CheckpointWriter writer(comm, {folder, {}, {{table, extents}}, 0, {}});
    for (const char* fault : {"checkpoint.copy:error", "checkpoint.write:enospc@2", ""}) {
      info.state->rl_step = ++info.step;
      const bool fails = *fault != '\0';
      arm_faults(fails ? fmt::format("{},rank={}", fault, comm.size() - 1) : "");
      const experiments::CheckpointWriter::Values values{weights.vec(), moments.vec(),
                                                         moments.vec()};
      writer.start(ctx, info, {&values, 1});
      std::vector<double> busy(1, 1);  // the learners' own collectives go on beside the save
      for (int i = 0; i < 20; ++i) comm.all_reduce_sum(busy);
      std::string problem = "no error";
      try {
        writer.wait();
      } catch (const experiments::AgreedError& error) {
        problem = error.what();
      }
      EXPECT_EQ(comm.all_gather_bytes(problem).front(), problem) << "all ranks agree";
      EXPECT_EQ(problem != "no error", fails) << problem;
      EXPECT_EQ(fs::exists(folder / storage::checkpoint_name(info.step)), !fails);
    }
  }
  comm.barrier();
  const storage::Checkpoint checkpoint(folder / storage::checkpoint_name(info.step));
  EXPECT_EQ(checkpoint.saving_ranks(), comm.size());
  EXPECT_EQ(storage::checkpoint_hash(checkpoint),
            storage::checkpoint_hash(info.step, table, all, all, all));
  comm.barrier();  // the folder goes with rank 0's
}

}  // namespace
}  // namespace orrery
