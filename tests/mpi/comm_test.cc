#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <optional>
#include <thread>

#include "comm/mailbox.h"
#include "comm/watchdog.h"
#include "core/error.h"
#include "core/rng.h"
#include "learners/ordered_reducer.h"
#include "tests/mpi/world.h"
#include "tests/support/device_values.h"
#include "tests/support/random_floats.h"

namespace orrery {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::DeviceFloats;
using testing_support::DeviceValues;
using testing_support::downloaded;
using testing_support::random_floats;
using testing_support::test_context;
using testing_support::test_device;
using testing_support::world;

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::ranges::equal(std::as_bytes(a), std::as_bytes(b));
}

/// A value that tells which rank wrote it where.
float stamp(int rank, size_t index) {
  return static_cast<float>(rank) * 1e6f + static_cast<float>(index % 100'003);
}

TEST(MpiWorld, EveryRankIsOnThisHost) {
  EXPECT_EQ(testing_support::comm_world().local_ranks(), world().size());
}

TEST(Collectives, OfSmallValuesAndTexts) {
  comm::Communicator& comm = world();
  const int n = comm.size(), r = comm.rank();
  for (int root = 0; root < n; ++root) {
    std::vector<int> data(7, r);
    comm.broadcast(std::as_writable_bytes(std::span(data)), root);
    EXPECT_THAT(data, testing::Each(root));
  }
  std::vector<double> values = {static_cast<double>(r), -static_cast<double>(r)};
  comm.all_reduce_max(values);
  EXPECT_THAT(values, ElementsAre(n - 1, 0));
  values = {0.5};
  comm.all_reduce_sum(values);
  EXPECT_EQ(values[0], 0.5 * n);
  const std::string text(static_cast<size_t>(3 * r), static_cast<char>('a' + r));
  const auto texts = comm.all_gather_bytes(text);
  ASSERT_EQ(texts.size(), static_cast<size_t>(n));
  for (int p = 0; p < n; ++p) {
    EXPECT_EQ(texts[static_cast<size_t>(p)],
              std::string(static_cast<size_t>(3 * p), static_cast<char>('a' + p)));
  }
  comm.barrier();
}

TEST(Collectives, BroadcastReduceAndGatherDeviceMemory) {
  comm::Communicator& comm = world();
  const int n = comm.size(), r = comm.rank();
  // Rank r owns r elements here and one there, with gaps that nobody owns.
  std::vector<std::vector<Extent>> owned;
  for (int p = 0, at = 0; p < n; at += p, ++p)
    owned.push_back({{at, at + p}, {100 + 2 * p, 101 + 2 * p}});
  std::vector<float> mine(200, -1), expected(200, -1);
  for (int p = 0; p < n; ++p) {
    for (const Extent& e : owned[static_cast<size_t>(p)]) {
      for (float& value : elements_of(std::span(expected), e)) value = static_cast<float>(p);
      if (p != r) continue;
      for (float& value : elements_of(std::span(mine), e)) value = static_cast<float>(p);
    }
  }
  const Context ctx = test_context();
  comm::DataPlane& plane = comm.data(ctx.device);
  EXPECT_EQ(&plane, &comm.data(ctx.device));
  for (int root = 0; root < n; ++root) {
    std::vector<float> data(1001), sent(1001);
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = stamp(r, i);
      sent[i] = stamp(root, i);
    }
    const DeviceFloats device(ctx, data);
    plane.broadcast(ctx, device.vec(), root);
    ASSERT_EQ(device.values(), sent);
  }
  const DeviceFloats ones(ctx, std::vector<float>(17, static_cast<float>(r + 1)));
  plane.all_reduce_sum(ctx, ones.vec());
  EXPECT_THAT(ones.values(), testing::Each(0.5f * static_cast<float>(n * (n + 1))));
  const DeviceFloats all(ctx, mine);
  plane.all_gather(ctx, all.vec(), owned);
  EXPECT_EQ(all.values(), expected);
}

TEST(Collectives, OtherTypesAreCopiedAndNotSummed) {
  comm::Communicator& comm = world();
  const Context ctx = test_context();
  const DeviceValues<uint16_t> bits(ctx, {static_cast<uint16_t>(comm.rank()), 7, 9});
  comm::DataPlane& plane = comm.data(ctx.device);
  const comm::DeviceArray array(bits.vec().data, DType::kBF16, bits.vec().size);
  plane.broadcast(ctx, array, comm.size() - 1);
  EXPECT_THAT(bits.values(), ElementsAre(comm.size() - 1, 7, 9));
  if (comm.size() > 1) {
    EXPECT_THROW(plane.all_reduce_sum(ctx, array), Error);
  }
  EXPECT_THROW(comm.data({DeviceType::kCuda}), Error);
}

TEST(Collectives, AllToAllInPiecesOfUnevenSlices) {
  comm::Communicator& comm = world();
  const int n = comm.size(), r = comm.rank();
  // Rank p gets 7 * p elements of everyone: none, less than a piece, several pieces and
  // a rest. Twice: the second half of the buffer first.
  std::vector<int64_t> low = {0};
  for (int p = 0; p < n; ++p) low.push_back(low.back() + 7 * p);
  std::vector<int64_t> high = low;
  for (int64_t& offset : high) offset += low.back();
  std::vector<float> send(static_cast<size_t>(high.back()));
  for (size_t i = 0; i < send.size(); ++i) send[i] = stamp(r, i);
  const int64_t own = low[static_cast<size_t>(r)], length = 7 * r;
  const Context ctx = test_context();
  const auto exchange_all = [&](int64_t piece, int64_t pieces_under_way) {
    const DeviceFloats sent(ctx, send),
        scratch(ctx, std::vector<float>(static_cast<size_t>(pieces_under_way * n * piece)));
    int64_t taken = 0;
    const auto exchange = comm.data(ctx.device).all_to_all(ctx, {sent.vec(), piece, scratch.vec()});
    const auto take = [&](const comm::DataPlane::Piece& got) {
      const auto [begin, end] = got.extent;
      ASSERT_EQ(begin, taken < length ? low.back() + own + taken : own + taken - length)
          << "pieces come in order";
      ASSERT_LE(end - begin, piece);
      ASSERT_EQ(got.parts.size(), n);
      for (int p = 0; p < n; ++p) {
        const auto part = downloaded(ctx, Vec<const float>(got.parts[p], end - begin));
        for (int64_t i = begin; i < end; ++i)
          ASSERT_EQ(part[static_cast<size_t>(i - begin)], stamp(p, static_cast<size_t>(i)));
      }
      taken += end - begin;
    };
    exchange->add(high);
    while (const auto got = exchange->poll()) take(*got);
    exchange->add(low);
    while (const auto got = exchange->wait()) take(*got);
    EXPECT_EQ(taken, 2 * length);
  };
  for (const int64_t piece : {1, 5, 1000}) {
    for (const int64_t pieces_under_way : {2, 3, 64}) exchange_all(piece, pieces_under_way);
  }
}

/// Index of the first element that is not expected(index), or the size. (A check of its
/// own for each of 40 million elements would take most of the test's time.)
template <class Expected>
size_t first_wrong(std::span<const float> data, Expected&& expected) {
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i] != expected(i)) return i;
  }
  return data.size();
}

// Larger than two of the pieces that MPI calls are cut into.
TEST(Collectives, DataLargerThanOnePiece) {
  comm::Communicator& comm = world();
  const int n = comm.size(), r = comm.rank(), last = n - 1;
  constexpr size_t kElements = (size_t{130} << 20) / sizeof(float) + 3;
  const auto stamped = [&](size_t i) { return stamp(last, i); };
  const Context ctx = test_context();
  comm::DataPlane& plane = comm.data(ctx.device);
  std::vector<float> data(kElements);
  for (size_t i = 0; i < kElements; ++i) data[i] = r == last ? stamped(i) : 0.0f;
  DeviceFloats device(ctx, data);
  const Vec<float> all = device.vec();
  plane.broadcast(ctx, all, last);
  EXPECT_EQ(first_wrong(device.values(), stamped), kElements);

  device.set(data);
  std::vector<std::vector<Extent>> owned(static_cast<size_t>(n));
  owned.back() = {{0, kElements}};
  plane.all_gather(ctx, all, owned);
  EXPECT_EQ(first_wrong(device.values(), stamped), kElements);

  for (size_t i = 0; i < kElements; ++i) data[i] = static_cast<float>(i % 1024);
  device.set(data);
  plane.all_reduce_sum(ctx, all);
  const auto ranks = static_cast<float>(n);
  const auto summed = [&](size_t i) { return ranks * static_cast<float>(i % 1024); };
  EXPECT_EQ(first_wrong(device.values(), summed), kElements);
}

TEST(Messages, LargeOnesCrossWithoutDeadlockAndKeepOrder) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  constexpr size_t kLarge = (size_t{150} << 20) + 5;
  if (comm.rank() < 2) {
    const int peer = 1 - comm.rank();
    const auto text_of = [](int rank, size_t size) {
      std::string text(size, static_cast<char>('A' + rank));
      if (size > 0) text.back() = '!';
      return text;
    };
    comm.send(peer, 7, text_of(comm.rank(), kLarge));
    comm.send(peer, 7, text_of(comm.rank(), 0));
    comm.send(peer, 8, "small");
    EXPECT_EQ(comm.receive(peer, 8).bytes, "small");
    const auto large = comm.receive(comm::Communicator::kAnySource, 7);
    EXPECT_EQ(large.source, peer);
    EXPECT_TRUE(large.bytes == text_of(peer, kLarge));
    EXPECT_EQ(comm.receive(peer, 7).bytes, "");
  }
  comm.barrier();
  EXPECT_FALSE(comm.try_receive(comm::Communicator::kAnySource, comm::Communicator::kAnyTag));
  comm.barrier();
}

TEST(Messages, WaitingLeavesTheCoreToOthers) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  const auto cpu_seconds = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  comm.barrier();
  const double before = cpu_seconds();
  if (comm.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  comm.barrier();
  if (comm.rank() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1000));
    for (int p = 1; p < comm.size(); ++p) comm.send(p, 1, "go");
  } else {
    EXPECT_EQ(comm.receive(0, 1).bytes, "go");
  }
  EXPECT_LT(cpu_seconds() - before, 0.8) << "of 2 s spent waiting";
  comm.barrier();
}

TEST(Mailbox, ActorsPullLeasesAndSendGroups) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  comm::Mailbox mailbox(comm);
  constexpr uint64_t kPrompts = 37;
  if (comm.rank() == 0) {
    uint64_t next = 0;
    std::vector<int> seen(kPrompts, 0);
    uint64_t groups = 0;
    int idle = 0;
    while (idle < comm.size() - 1 || groups < kPrompts) {
      const comm::Envelope envelope = mailbox.receive_any();
      if (envelope.kind == comm::MessageKind::kGroups) {
        const auto message = envelope.open<proto::GroupsMessage>();
        for (const auto& group : message.groups()) {
          ++seen[group.prompt_index()];
          ++groups;
          EXPECT_EQ(group.samples(0).tokens_size(), 1000);
          EXPECT_EQ(group.samples(0).tokens(999), envelope.source);
        }
        continue;
      }
      const auto request = envelope.open<proto::LeaseRequest>();
      EXPECT_EQ(request.rank(), envelope.source);
      proto::Lease lease;
      lease.set_step(4);
      for (uint32_t i = 0; i < request.groups() && next < kPrompts; ++i)
        lease.add_prompt_index(next++);
      lease.set_done(lease.prompt_index_size() == 0);
      if (lease.done()) ++idle;
      mailbox.send(envelope.source, lease);
    }
    EXPECT_THAT(seen, testing::Each(1));
  } else {
    for (;;) {
      proto::LeaseRequest request;
      request.set_rank(comm.rank());
      request.set_groups(static_cast<uint32_t>(comm.rank()));
      mailbox.send(0, request);
      const auto lease = mailbox.receive<proto::Lease>(0);
      if (lease.done()) break;
      EXPECT_EQ(lease.step(), 4u);
      proto::GroupsMessage message;
      for (const uint64_t prompt : lease.prompt_index()) {
        auto* group = message.add_groups();
        group->set_prompt_index(prompt);
        auto* sample = group->add_samples();
        for (int i = 0; i < 1000; ++i) sample->add_tokens(comm.rank());
      }
      mailbox.send(0, message);
    }
  }
  comm.barrier();
}

TEST(Split, FormsCommunicatorsThatDoNotHearEachOther) {
  comm::Communicator& comm = world();
  const int color = comm.rank() % 2;
  const auto part = comm.split(color);
  ASSERT_NE(part, nullptr);
  EXPECT_EQ(part->size(), (comm.size() + 1 - color) / 2);
  EXPECT_EQ(part->rank(), comm.rank() / 2);
  std::vector<double> value = {static_cast<double>(comm.rank())};
  part->all_reduce_sum(value);
  float expected = 0;
  for (int p = color; p < comm.size(); p += 2) expected += static_cast<float>(p);
  EXPECT_EQ(value[0], expected);
  part->send(0, 3, "inside");
  comm.barrier();
  EXPECT_FALSE(comm.try_receive(comm::Communicator::kAnySource, comm::Communicator::kAnyTag));
  if (part->rank() == 0) {
    for (int i = 0; i < part->size(); ++i)
      EXPECT_EQ(part->receive(comm::Communicator::kAnySource, 3).bytes, "inside");
  }
  const auto first_only = comm.split(comm.rank() == 0 ? 0 : -1);
  EXPECT_EQ(first_only != nullptr, comm.rank() == 0);
}

TEST(OrderedReduceScatter, EightShardsHaveTheSameBitsOnAnyNumberOfRanks) {
  comm::Communicator& comm = world();
  constexpr int64_t kShards = 8, kElements = 700'003;  // several buckets of several pieces
  const Context ctx = test_context(2);
  const int64_t mine = kShards / comm.size();
  // Known from the end, as in a backward pass, in steps that differ from rank to rank
  // and from the buckets.
  const auto fill = [&](int64_t shard, const FlatView& buffer, const auto& final_from) {
    const auto values = random_floats(kElements, static_cast<uint64_t>(shard));
    const int64_t step = 30'000 + 7'001 * comm.rank();
    for (int64_t end = kElements; end > 0; end -= std::min(end, step)) {
      const int64_t begin = end - std::min(end, step);
      const Vec<float> place(buffer.at(begin), end - begin);
      upload(ctx, place, Span<const float>(values).subspan(begin, end - begin));
      if (begin > 0) final_from(begin);
    }
  };
  learners::ShardTree serial(test_device(), {0, kElements}, kShards);
  serial.begin(ctx);
  for (int64_t s = 0; s < kShards; ++s) {
    fill(s, serial.begin_shard(/*by_region=*/false), [](int64_t /*begin*/) {});
    serial.end_shard();
  }

  const learners::SlicePlan plan = learners::plan_slices(kElements, 256, comm.size());
  const std::vector<Extent> extents = plan.extents(comm.rank());
  learners::ShardTree tree(test_device(), {0, kElements}, mine);
  for (const bool fast : {false, true}) {
    Arena arena(ctx.device);
    learners::OrderedReduceScatter reduce(ctx, comm, tree.result(), plan, fast, arena);
    tree.begin(ctx);
    for (int64_t s = 0; s < mine; ++s) {
      fill(comm.rank() * mine + s, tree.begin_shard(/*by_region=*/false), [&](int64_t begin) {
        tree.merge(begin);
        reduce.send(tree.final_from());
      });
      tree.end_shard();
      reduce.send(tree.final_from());
    }
    reduce.finish();
    for (const Extent& e : extents) {
      const auto expected = downloaded(ctx, elements_of(serial.result(), e)),
                 found = downloaded(ctx, elements_of(tree.result(), e));
      if (!fast) {
        EXPECT_TRUE(same_bits(found, expected)) << "from " << e.begin;
        continue;
      }
      for (size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-5);
    }
  }
}

TEST(OrderedReduceScatter, SumsWhatIsFinalWhileTheRestIsNotYetThere) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  constexpr int64_t kElements = 100'000;
  const learners::SlicePlan plan = learners::plan_slices(kElements, 64, comm.size());
  ASSERT_GT(plan.buckets.size(), 2u);
  const int64_t last_bucket = plan.buckets.back().front();
  const Context ctx = test_context();
  const DeviceFloats gradient(ctx, std::vector<float>(kElements, 1.0f));
  Arena arena(ctx.device);
  learners::OrderedReduceScatter reduce(ctx, comm, gradient.vec(), plan, /*fast=*/false, arena);
  reduce.send(last_bucket + 1);
  for (int i = 0; i < 100; ++i) reduce.send(last_bucket + 1);
  const auto owned = plan.buckets.back();
  const int64_t first = owned[static_cast<size_t>(comm.rank())];
  ASSERT_LT(first, kElements);
  const auto element = [&](int64_t i) {
    return downloaded(ctx, gradient.vec().part(i, 1)).front();
  };
  EXPECT_EQ(element(first), 1.0f) << "the bucket's first element was not final";
  const auto sum = static_cast<float>(comm.size());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (element(first) != sum && std::chrono::steady_clock::now() < deadline)
    reduce.send(last_bucket);
  EXPECT_EQ(element(first), sum) << "summed before the rest was told";
  EXPECT_EQ(element(0), 1.0f);
  reduce.send(0);
  reduce.finish();
  for (const Extent& e : plan.extents(comm.rank()))
    EXPECT_THAT(downloaded(ctx, elements_of(gradient.vec(), e)), testing::Each(sum));
}

TEST(Watchdog, SeesWhoWorksAndWhoWaits) {
  comm::Communicator& comm = world();
  if (comm.size() == 1) GTEST_SKIP() << "needs 2 ranks";
  constexpr int kSeen = 9;
  const int slow = comm.size() - 1;
  const std::string working = fmt::format("rank {} has been in 'reward' for", slow);
  const std::string waiting =
      comm.size() == 2 ? "rank 0 waits in barrier" : "ranks 0, 1, 2 wait in barrier";
  {
    comm::WatchdogOptions options;
    options.warn_seconds = 1.2;
    options.period = std::chrono::milliseconds(50);
    // The slow rank goes on until rank 0 has named everyone. On a busy machine that may
    // take a report more.
    comm::Watchdog watchdog(comm, options, [&](const std::string& text, bool fatal) {
      EXPECT_EQ(comm.rank(), 0);
      EXPECT_FALSE(fatal);
      if (text.find(working) == std::string::npos || text.find(waiting) == std::string::npos)
        return;
      comm.send(slow, kSeen, text);
    });
    const auto part = comm.split(0);  // waiting in a part of the world counts too
    watchdog.begin_phase(comm.rank() == slow ? "reward" : "update");
    if (comm.rank() == slow) {
      std::optional<comm::Communicator::Message> seen;
      for (int i = 0; i < 600 && !seen; ++i) {
        seen = comm.try_receive(0, kSeen);
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
      EXPECT_TRUE(seen.has_value())
          << "rank 0 never said '" << working << "' with '" << waiting << "'";
    }
    part->barrier();
  }
  while (comm.try_receive(comm::Communicator::kAnySource, kSeen)) {
  }
  comm.barrier();
}

TEST(Waiting, OfWhatIsPolledIsSeenByOthersAndLeavesTheCore) {
  comm::Communicator& comm = world();
  int asked = 0;
  comm.wait("polling", [&] {
    const comm::Waiting seen = comm.waiting();
    EXPECT_STREQ(seen.operation, "polling");
    return ++asked == 3;
  });
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(comm.waiting().operation, nullptr);
}

}  // namespace
}  // namespace orrery
