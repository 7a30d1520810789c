// The data plane over NCCL on several ranks, with a stand-in for the library that moves
// host memory over MPI (tests/mpi/fake_nccl).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "comm/nccl_data_plane.h"
#include "core/error.h"
#include "learners/ordered_reducer.h"
#include "tests/mpi/fake_nccl/fake_nccl.h"
#include "tests/mpi/world.h"
#include "tests/support/random_floats.h"

namespace orrery {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::FakeNccl;
using testing_support::random_floats;
using testing_support::world;

const Context kCtx{.device = {DeviceType::kCpu}};

/// A communicator of all ranks whose planes are NCCL's.
std::unique_ptr<comm::Communicator> nccl_world(const FakeNccl& fake, double timeout_seconds = 60) {
  auto comm = world().duplicate();
  comm->set_plane_maker(
      [api = fake.api(), timeout_seconds](comm::Communicator& its, Device device) {
        return comm::nccl::make_data_plane(its, device, api, timeout_seconds);
      });
  return comm;
}

template <class Body>
std::string error_of(Body&& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

float stamp(int rank, int64_t index) {
  return static_cast<float>(rank) * 1e6f + static_cast<float>(index % 100'003);
}

Vec<float> vec(std::vector<float>& values) { return {values.data(), std::ssize(values)}; }

TEST(Nccl, AllRanksStartWithRankZerosId) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  {
    const auto comm = nccl_world(fake);
    comm->data(kCtx.device);
    EXPECT_EQ(fake.calls(), world().rank() == 0 ? "id init" : "init");
    const auto ids = world().all_gather_bytes(fake.last_id());
    EXPECT_EQ(ids.front().size(), 128u);
    EXPECT_THAT(ids, Each(ids.front()));
    EXPECT_NE(ids.front(), std::string(128, '\0'));
  }
  EXPECT_THAT(fake.calls(), testing::EndsWith("init finalize destroy"));
}

TEST(Nccl, BroadcastsSumsAndGathers) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = nccl_world(fake);
  comm::DataPlane& plane = comm->data(kCtx.device);
  const int n = world().size(), r = world().rank();
  for (int root = 0; root < n; ++root) {
    std::vector<float> data(1001), sent(1001);
    for (int64_t i = 0; i < 1001; ++i) {
      data[static_cast<size_t>(i)] = stamp(r, i);
      sent[static_cast<size_t>(i)] = stamp(root, i);
    }
    plane.broadcast(kCtx, vec(data), root);
    ASSERT_EQ(data, sent);
  }
  std::vector<float> ones(17, static_cast<float>(r + 1));
  plane.all_reduce_sum(kCtx, vec(ones));
  EXPECT_THAT(ones, Each(0.5f * static_cast<float>(n * (n + 1))));

  // More extents than one group takes, of different numbers, some of them empty, with
  // gaps that nobody owns.
  std::vector<std::vector<Extent>> owned(static_cast<size_t>(n));
  int64_t at = 0;
  for (int p = 0; p < n; ++p) {
    for (int i = 0; i < 70 * p + 1; ++i) {
      owned[static_cast<size_t>(p)].push_back({at, at + i % 3});
      at += i % 3 + 1;
    }
  }
  std::vector<float> mine(static_cast<size_t>(at), -1), expected = mine;
  for (int p = 0; p < n; ++p) {
    for (const Extent& e : owned[static_cast<size_t>(p)]) {
      for (int64_t i = e.begin; i < e.end; ++i) {
        expected[static_cast<size_t>(i)] = stamp(p, i);
        if (p == r) mine[static_cast<size_t>(i)] = stamp(p, i);
      }
    }
  }
  plane.all_gather(kCtx, vec(mine), owned);
  EXPECT_EQ(mine, expected);
}

/// Rank p gets 7 * p elements of everyone, the second half of the buffer first: none,
/// less than a piece, several pieces and a rest.
TEST(Nccl, AllToAllInPiecesOfUnevenSlices) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = nccl_world(fake);
  const int n = world().size(), r = world().rank();
  std::vector<int64_t> low = {0};
  for (int p = 0; p < n; ++p) low.push_back(low.back() + 7 * p);
  std::vector<int64_t> high = low;
  for (int64_t& offset : high) offset += low.back();
  std::vector<float> send(static_cast<size_t>(high.back()));
  for (size_t i = 0; i < send.size(); ++i) send[i] = stamp(r, static_cast<int64_t>(i));
  const int64_t own = low[static_cast<size_t>(r)], length = 7 * r;
  for (const int64_t slots : {2, 3, 16}) {
    constexpr int64_t kPiece = 3;
    std::vector<float> scratch(static_cast<size_t>(slots * n * kPiece));
    const auto exchange =
        comm->data(kCtx.device).all_to_all(kCtx, {vec(send), kPiece, vec(scratch)});
    int64_t taken = 0;
    const auto take = [&](const comm::DataPlane::Piece& got) {
      const auto [begin, end] = got.extent;
      ASSERT_EQ(begin, taken < length ? low.back() + own + taken : own + taken - length);
      ASSERT_LE(end - begin, kPiece);
      ASSERT_EQ(got.parts.size(), n);
      for (int p = 0; p < n; ++p) {
        for (int64_t i = begin; i < end; ++i) ASSERT_EQ(got.parts[p][i - begin], stamp(p, i));
      }
      taken += end - begin;
    };
    exchange->add(high);
    while (const auto piece = exchange->poll()) take(*piece);
    exchange->add(low);
    while (const auto piece = exchange->wait()) take(*piece);
    EXPECT_EQ(taken, 2 * length);
    EXPECT_FALSE(exchange->wait());
  }
  EXPECT_THAT(fake.calls(), testing::Not(HasSubstr("abort")));
}

/// The gradient's ordered sum with NCCL's plane has the bits that it has with MPI's.
TEST(Nccl, OrderedSumsHaveMpisBits) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = nccl_world(fake);
  const int n = world().size(), r = world().rank();
  const auto gradient = random_floats(20'011, static_cast<uint64_t>(r) + 3);
  const learners::SlicePlan plan = learners::plan_slices(std::ssize(gradient), /*chunk=*/256, n);
  const auto reduced = [&](comm::Communicator& by) {
    std::vector<float> values(gradient.begin(), gradient.end());
    Arena arena;
    learners::OrderedReduceScatter reduce(kCtx, by, vec(values), plan, false, arena);
    for (int64_t begin = std::ssize(values); begin > 0; begin = std::max<int64_t>(begin - 5000, 0))
      reduce.send(begin);
    reduce.send(0);
    reduce.finish();
    std::vector<uint32_t> bits;
    for (const Extent& e : plan.extents(r)) {
      for (int64_t i = e.begin; i < e.end; ++i)
        bits.push_back(std::bit_cast<uint32_t>(values[static_cast<size_t>(i)]));
    }
    return bits;
  };
  EXPECT_EQ(reduced(*comm), reduced(world()));
}

TEST(Nccl, AnErrorNamesThisRankAndTheOthers) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = nccl_world(fake);
  comm::DataPlane& plane = comm->data(kCtx.device);
  fake.reset();
  fake.set_async_result(1);
  std::vector<float> values(64);
  const std::string error = error_of([&] { plane.broadcast(kCtx, vec(values), 0); });
  const int n = world().size(), r = world().rank();
  EXPECT_THAT(error, AllOf(StartsWith(fmt::format("broadcast failed on rank {} of {} (", r, n)),
                           HasSubstr("NCCL says: unhandled cuda error (first line second line)")));
  for (int p = 0; p < n; ++p) {
    const std::string named = fmt::format("{} (", p);
    const std::string others = error.substr(error.find("other ranks: "));
    EXPECT_EQ(others.find(named) != std::string::npos, p != r) << error;
  }
  EXPECT_EQ(fake.calls(), "( broadcast ) abort");
  world().barrier();
}

TEST(Nccl, AStartThatNeverEndsIsAborted) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  fake.stop();
  const auto comm = nccl_world(fake, /*timeout_seconds=*/0.2);
  EXPECT_THAT(error_of([&] { comm->data(kCtx.device); }),
              AllOf(StartsWith(fmt::format("start of NCCL on rank {} of {} (", world().rank(),
                                           world().size())),
                    HasSubstr("did not end within 0.2 s (cluster.hang_timeout_s)")));
  EXPECT_THAT(fake.calls(), testing::EndsWith("init abort"));
  world().barrier();
}

TEST(Nccl, WithoutAnIdAllRanksSayWhy) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  fake.set_id_result(2);
  const auto comm = nccl_world(fake);
  EXPECT_THAT(error_of([&] { comm->data(kCtx.device); }),
              AllOf(StartsWith("NCCL gives rank 0 ("), HasSubstr("unhandled system error")));
  EXPECT_EQ(fake.calls(), world().rank() == 0 ? "id" : "");
}

/// The rank that does not come is named by the others, and nobody waits for ever.
TEST(Nccl, APeerThatDoesNotComeIsADeadline) {
  if (world().size() == 1) GTEST_SKIP() << "there is no peer";
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = nccl_world(fake, /*timeout_seconds=*/0.2);
  comm::DataPlane& plane = comm->data(kCtx.device);
  const int n = world().size(), r = world().rank();
  std::vector<float> values(64);
  std::vector<std::vector<Extent>> owned;
  for (int p = 0; p < n; ++p) owned.push_back({{p, p + 1}});
  if (r != n - 1) {
    EXPECT_THAT(error_of([&] { plane.all_gather(kCtx, vec(values), owned); }),
                AllOf(StartsWith(fmt::format("all_gather on rank {} of {} (", r, n)),
                      HasSubstr(fmt::format("{} (", n - 1)),
                      HasSubstr("a peer hangs, or has not come to it")));
    EXPECT_THAT(fake.calls(), testing::EndsWith("abort"));
  }
  world().barrier();
}

}  // namespace
}  // namespace orrery
