#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>

#include "comm/communicator.h"
#include "comm/mailbox.h"
#include "comm/topology.h"
#include "comm/watchdog.h"
#include "core/cuda_api.h"
#include "core/error.h"
#include "core/rng.h"
#include "tests/support/device_values.h"
#include "tests/support/scratch.h"

namespace orrery::comm {
namespace {

using testing_support::error_with;

using testing::ElementsAre;
using testing::HasSubstr;

TEST(LocalCommunicator, CollectivesOfOneRankCopy) {
  const auto comm = make_local_communicator();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->size(), 1);
  comm->barrier();
  const Context ctx = testing_support::test_context();
  const testing_support::DeviceFloats all(ctx, {0, 1, 2, 3, 0});
  const Vec<float> memory = all.vec();
  const std::vector<std::vector<Extent>> owned = {{{1, 2}, {3, 4}}};
  DataPlane& plane = comm->data(ctx.device);
  EXPECT_EQ(&plane, &comm->data(ctx.device));
  plane.all_gather(ctx, memory, owned);
  EXPECT_THAT(all.values(), ElementsAre(0, 1, 2, 3, 0));
  std::vector<float> received;
  const auto exchange = plane.all_to_all(ctx, {memory, 2, {}});
  exchange->add(std::vector<int64_t>{1, 4});
  while (const auto piece = exchange->poll()) {
    EXPECT_EQ(piece->extent.begin, 1 + static_cast<int64_t>(received.size()));
    const Vec<const float> part(piece->parts[0], piece->extent.size());
    for (const float value : testing_support::downloaded(ctx, part)) received.push_back(value);
  }
  EXPECT_FALSE(exchange->wait());
  EXPECT_THAT(received, ElementsAre(1, 2, 3));
  EXPECT_THAT(comm->all_gather_bytes("me"), ElementsAre("me"));
  EXPECT_EQ(comm->split(-1), nullptr);
  EXPECT_EQ(comm->split(3)->size(), 1);
  using Owned = std::vector<std::vector<Extent>>;
  EXPECT_THROW(plane.all_gather(ctx, memory, Owned{{{0, 9}}}), Error);
  EXPECT_THROW(plane.all_gather(ctx, memory, Owned{{{0, 1}}, {{1, 2}}}), Error);
  EXPECT_THROW(plane.broadcast(ctx, memory, 1), Error);
  if (!kCudaBuilt) {
    EXPECT_THAT(error_with([&] { comm->data({DeviceType::kCuda}); }),
                HasSubstr("this build has no collectives for device cuda:0: use cpu"));
  }
  EXPECT_THROW(exchange->add(std::vector<int64_t>{0, 9}), Error);
}

TEST(LocalCommunicator, MessagesToOneselfKeepTheirOrderAndTags) {
  const auto comm = make_local_communicator();
  EXPECT_FALSE(comm->try_receive(Communicator::kAnySource, Communicator::kAnyTag));
  comm->send(0, 4, "a");
  comm->send(0, 5, "b");
  comm->send(0, 4, "c");
  EXPECT_EQ(comm->receive(0, 5).bytes, "b");
  EXPECT_EQ(comm->receive(Communicator::kAnySource, Communicator::kAnyTag).bytes, "a");
  EXPECT_EQ(comm->try_receive(0, 4)->bytes, "c");
  EXPECT_THAT(error_with([&] { comm->receive(0, 4); }), HasSubstr("there is only one rank"));
}

TEST(Mailbox, CarriesTypedMessagesAndNamesDamage) {
  const auto comm = make_local_communicator();
  Mailbox mailbox(*comm);
  proto::Lease lease;
  lease.add_prompt_index(7);
  lease.add_prompt_index(uint64_t{1} << 40);
  lease.set_weight_version(3);
  mailbox.send(0, lease);
  int from = -1;
  const auto received = mailbox.receive<proto::Lease>(Communicator::kAnySource, &from);
  EXPECT_EQ(from, 0);
  EXPECT_EQ(received.SerializeAsString(), lease.SerializeAsString());
  EXPECT_FALSE(mailbox.try_receive<proto::Lease>());

  proto::Control control;
  control.set_kind(proto::Control::STOP);
  mailbox.send(0, control);
  const Envelope envelope = mailbox.receive_any();
  EXPECT_EQ(envelope.kind, MessageKind::kControl);
  EXPECT_EQ(envelope.open<proto::Control>().kind(), proto::Control::STOP);
  EXPECT_THAT(error_with([&] { envelope.open<proto::Lease>(); }),
              HasSubstr("rank 0 sent a control message where a lease message was expected"));

  // Every single damaged byte is seen: header, length, checksum or payload.
  mailbox.send(0, lease);
  const std::string good = comm->receive(0, static_cast<int>(MessageKind::kLease)).bytes;
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    comm->send(0, static_cast<int>(MessageKind::kLease), bad);
    EXPECT_THAT(error_with([&] { mailbox.receive<proto::Lease>(); }),
                HasSubstr("damaged lease message from rank 0"))
        << i;
  }
  for (size_t length = 0; length < good.size(); ++length) {
    comm->send(0, static_cast<int>(MessageKind::kLease), good.substr(0, length));
    EXPECT_THAT(error_with([&] { mailbox.try_receive<proto::Lease>(); }),
                HasSubstr("damaged lease message"));
  }
  comm->send(0, 5, good);
  EXPECT_THAT(error_with([&] { mailbox.try_receive_any(); }),
              HasSubstr("unknown tag 5 from rank 0"));
  EXPECT_FALSE(mailbox.try_receive_any());
}

proto::RankStatus status(const char* phase, double seconds, const char* waiting = "",
                         double waited = 0) {
  proto::RankStatus result;
  result.set_phase(phase);
  result.set_phase_seconds(seconds);
  result.set_still_seconds(seconds);
  result.set_waiting_in(waiting);
  result.set_waiting_seconds(waited);
  return result;
}

TEST(Watchdog, NamesTheRankThatHoldsTheOthersUp) {
  const std::vector<double> fresh(4, 0.0);
  double stuck = -1;
  const auto line = [&](const std::vector<proto::RankStatus>& statuses,
                        const std::vector<double>& ages) {
    return watchdog_line(statuses, ages, 100, stuck);
  };
  EXPECT_EQ(line({status("generate", 99), status("update", 300, "all_reduce", 99), status("x", 1),
                  status("x", 1)},
                 fresh),
            "");
  EXPECT_EQ(stuck, 0);
  EXPECT_EQ(
      line({status("update", 310, "all_reduce", 309), status("update", 310, "all_reduce", 308),
            status("reward", 315), status("update", 310, "receive", 300)},
           fresh),
      "no progress for 315 s: rank 2 has been in 'reward' for 315 s without progress; "
      "ranks 0, 1 wait in all_reduce; rank 3 waits in receive");
  EXPECT_EQ(stuck, 315);
  EXPECT_EQ(line({status("save", 5, "barrier", 4), status("save", 5)}, {0, 120}),
            "no progress for 120 s: rank 1 has been silent for 120 s, last in 'save'; "
            "rank 0 waits in barrier");
  EXPECT_EQ(line({status("a", 500, "barrier", 400), status("b", 500, "receive", 200)}, {0, 5}),
            "no progress for 205 s: all ranks wait for each other; rank 0 waits in barrier; "
            "rank 1 waits in receive");
  EXPECT_EQ(line({status("a", 500, "barrier", 400), status("b", 500, "receive", 50)}, {0, 0}), "");
  proto::RankStatus left = status("end", 500);
  left.set_leaving(true);
  EXPECT_EQ(line({left, status("a", 1)}, {0, 0}), "");
}

TEST(Watchdog, WithoutWarningsOnlyTheDeadlineSpeaks) {
  const auto comm = make_local_communicator();
  for (const double fatal_seconds : {0.0, 0.3}) {
    std::atomic<int> warnings = 0, ends = 0;
    WatchdogOptions options;
    options.warn_seconds = 0;
    options.fatal_seconds = fatal_seconds;
    options.period = std::chrono::milliseconds(10);
    {
      Watchdog watchdog(*comm, options,
                        [&](const std::string&, bool fatal) { ++(fatal ? ends : warnings); });
      watchdog.begin_phase("generate");
      for (int i = 0; i < (fatal_seconds > 0 ? 300 : 5) && ends == 0; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    EXPECT_EQ(warnings, 0);
    EXPECT_EQ(ends, fatal_seconds > 0 ? 1 : 0);
  }
}

TEST(Watchdog, WorksOnOneRankAndProgressResetsIt) {
  const auto comm = make_local_communicator();
  std::mutex mutex;
  std::vector<std::string> lines;
  bool fatal_seen = false;
  {
    WatchdogOptions options;
    options.warn_seconds = 1.0;
    options.fatal_seconds = 1.5;
    options.period = std::chrono::milliseconds(10);
    Watchdog watchdog(*comm, options, [&](const std::string& text, bool fatal) {
      const std::lock_guard lock(mutex);
      EXPECT_FALSE(fatal_seen) << "after the fatal report: " << text;
      lines.push_back(text);
      fatal_seen = fatal;
    });
    for (int i = 0; i < 150; ++i) {
      watchdog.begin_phase("generate");
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    const auto reports = [&] {
      const std::lock_guard lock(mutex);
      return lines.size();
    };
    EXPECT_EQ(reports(), 0u);
    watchdog.begin_phase("reward");
    for (int i = 0; i < 300 && reports() < 2; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(fatal_seen);
  EXPECT_THAT(lines[0], HasSubstr("rank 0 has been in 'reward' for 1 s"));
}

using Placement = proto::ClusterSection::PlacementMode;
constexpr Placement kColocated = proto::ClusterSection::COLOCATED;
constexpr Placement kSplit = proto::ClusterSection::SPLIT;

Topology topology_of(Placement placement, int ranks, int learners, int shards) {
  proto::ClusterSection cluster;
  cluster.set_placement(placement);
  cluster.set_learners(learners);
  cluster.set_gradient_shards(shards);
  return make_topology(cluster, ranks);
}

TEST(Topology, ChoosesRolesAndExplainsWhatDoesNotFit) {
  const Topology colocated = topology_of(kColocated, 4, 0, 8);
  EXPECT_EQ(colocated.learners.size(), 4);
  EXPECT_EQ(colocated.actors(), 4);
  EXPECT_TRUE(colocated.is_learner(3) && colocated.is_actor(3));
  EXPECT_FALSE(colocated.has_followers());
  const Topology three = topology_of(kColocated, 3, 0, 8);
  EXPECT_EQ(three.learners.size(), 2);
  EXPECT_EQ(three.actors(), 3);
  EXPECT_TRUE(three.has_followers());
  EXPECT_EQ(topology_of(kColocated, 16, 0, 8).learners.size(), 8);
  EXPECT_EQ(topology_of(kColocated, 4, 2, 8).learners.size(), 2);
  const Topology split = topology_of(kSplit, 7, 0, 8);
  EXPECT_EQ(split.learners.size(), 2);  // half is 3: the next power of two below
  EXPECT_EQ(split.actors(), 5);
  EXPECT_TRUE(split.is_learner(1) && !split.is_learner(2) && split.is_actor(2) &&
              !split.is_actor(0));
  EXPECT_EQ(topology_of(kSplit, 4, 1, 8).actors(), 3);

  const auto refused = [](Placement placement, int ranks, int learners, int shards) {
    return error_with([&] { topology_of(placement, ranks, learners, shards); }, kExitUsage);
  };
  EXPECT_EQ(
      refused(kSplit, 1, 0, 8),
      "cluster.placement: split needs at least 2 ranks (one learner, one actor) but there is 1: "
      "start with mpirun -n 2 or more, or set cluster.placement: colocated");
  EXPECT_EQ(refused(kSplit, 4, 4, 8),
            "cluster.learners is 4 of 4 ranks, which leaves no actor: "
            "set cluster.learners to at most 2, or start more ranks");
  EXPECT_EQ(refused(kSplit, 4, 3, 8),
            "cluster.learners is 3, which cannot share cluster.gradient_shards = 8: "
            "use a power of two that is at most 8 (for example 2)");
  EXPECT_THAT(refused(kColocated, 4, 4, 2), HasSubstr("or raise cluster.gradient_shards"));
  EXPECT_THAT(refused(kColocated, 4, 8, 8), HasSubstr("there are 4 ranks"));
  EXPECT_THAT(refused(kColocated, 1, 0, 6), HasSubstr("cluster.gradient_shards is 6"));
  EXPECT_THAT(refused(kSplit, 4, -1, 8), HasSubstr("cluster.learners is -1"));
}

}  // namespace
}  // namespace orrery::comm
