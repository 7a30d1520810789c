// What of NCCL's data plane needs no second rank: the library and its version, a
// group's life and its errors, and which ranks get it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <vector>

#include "comm/nccl_data_plane.h"
#include "comm/plane_choice.h"
#include "core/error.h"
#include "tests/mpi/fake_nccl/fake_nccl.h"
#include "tests/support/device_values.h"
#include "tests/support/scratch.h"

namespace orrery::comm {
namespace {

using testing_support::error_with;

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;
using testing_support::FakeNccl;

// The stand-in moves host memory, so its planes are the CPU's.
constexpr Device kDevice{DeviceType::kCpu};

TEST(NcclApi, VersionsAsPeopleWriteThem) {
  EXPECT_EQ(nccl::version_text(22809), "2.28.9");
  EXPECT_EQ(nccl::version_text(21801), "2.18.1");
  EXPECT_EQ(nccl::version_text(2708), "2.7.8");
}

TEST(NcclApi, RefusesAnOldLibrary) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  EXPECT_EQ(fake.api()->version, 22809);
  fake.set_version(21708);
  EXPECT_EQ(error_with([&] { fake.api(); }),
            std::string("NCCL (") + ORRERY_FAKE_NCCL +
                ") is of version 2.17.8; 2.18.1 is the oldest that works: install it (pip install "
                "nvidia-nccl-cu13), or set ORRERY_NCCL to a newer one");
}

TEST(NcclGroup, OfOneRankLivesAndEnds) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice};
  std::vector<float> values = {1, 2, 3};
  const Vec<float> memory(values.data(), 3);
  {
    const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 10);
    plane->broadcast(ctx, memory, 0);
    plane->all_reduce_sum(ctx, memory);
    plane->all_gather(ctx, memory, std::vector<std::vector<Extent>>{{{0, 2}}});
    std::vector<float> scratch(4);
    const auto exchange =
        plane->all_to_all(ctx, {memory, 2, {scratch.data(), std::ssize(scratch)}});
    exchange->add(std::vector<int64_t>{0, 3});
    std::vector<Extent> pieces;
    while (const auto piece = exchange->wait()) {
      pieces.push_back(piece->extent);
      ASSERT_EQ(piece->parts.size(), 1);
      EXPECT_EQ(piece->parts[0], values.data() + piece->extent.begin);
    }
    ASSERT_EQ(pieces.size(), 2u);
    EXPECT_EQ(pieces[1].begin, 2);
    EXPECT_EQ(pieces[1].end, 3);
    EXPECT_FALSE(exchange->poll());
  }
  EXPECT_THAT(values, ElementsAre(1, 2, 3));
  EXPECT_EQ(fake.calls(), "id init ( broadcast ) ( all_reduce ) ( ) ( ) ( ) finalize destroy");
}

TEST(NcclGroup, ChecksItsArguments) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice}, other{.device = {DeviceType::kDebug}};
  std::vector<float> values(8);
  const Vec<float> memory(values.data(), 8);
  const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 10);
  fake.reset();
  EXPECT_THAT(error_with([&] { plane->broadcast(ctx, memory, 1); }), HasSubstr("rank 1 of 1"));
  EXPECT_THAT(error_with([&] { plane->broadcast(other, memory, 0); }),
              HasSubstr("broadcast: memory of debug for the collectives of cpu"));
  EXPECT_EQ(error_with([&] {
              plane->all_reduce_sum(ctx, {values.data(), DType::kBF16, 8});
            }),
            "all_reduce: elements are bf16; NCCL's sums are of f32");
  using Owned = std::vector<std::vector<Extent>>;
  EXPECT_THROW(plane->all_gather(ctx, memory, Owned{{{0, 9}}}), Error);
  EXPECT_THROW(plane->all_gather(ctx, memory, Owned{{{0, 1}}, {{1, 2}}}), Error);
  EXPECT_THROW(plane->all_to_all(ctx, {memory, 5, memory}), Error) << "scratch for two pieces";
  const auto exchange = plane->all_to_all(ctx, {memory, 2, memory});
  EXPECT_THROW(exchange->add(std::vector<int64_t>{0, 9}), Error);
  plane->broadcast(ctx, {values.data(), DType::kF32, 0}, 0);
  EXPECT_EQ(fake.calls(), "") << "nothing of that came to the library";
}

TEST(NcclGroup, AnErrorNamesTheOperationAndAborts) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice};
  std::vector<float> values(8);
  const Vec<float> memory(values.data(), 8);
  const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 10);
  fake.reset();
  fake.set_call_result(1);
  EXPECT_THAT(error_with([&] { plane->broadcast(ctx, memory, 0); }),
              AllOf(StartsWith("broadcast failed on rank 0 of 1 ("),
                    HasSubstr(", cpu): NCCL says: unhandled cuda error (first line second line); "
                              "NCCL_DEBUG=WARN says more; other ranks: none")));
  EXPECT_EQ(fake.calls(), "( broadcast ) abort") << "what was opened was closed";
  fake.set_call_result(0);
  EXPECT_THAT(error_with([&] { plane->broadcast(ctx, memory, 0); }),
              HasSubstr("broadcast with a NCCL group that was aborted in broadcast"));
  EXPECT_EQ(fake.calls(), "( broadcast ) abort");
}

TEST(NcclGroup, AnErrorThatComesLaterIsSeenAndAborts) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice};
  std::vector<float> values(8);
  const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 10);
  fake.reset();
  fake.set_async_result(6);
  EXPECT_THAT(error_with([&] { plane->all_reduce_sum(ctx, Vec<float>(values.data(), 8)); }),
              AllOf(StartsWith("all_reduce failed on rank 0 of 1 ("),
                    HasSubstr("remote process exited or there was a network error"),
                    HasSubstr("a peer has gone, or the network to it: see the other ranks' "
                              "messages")));
  EXPECT_EQ(fake.calls(), "( all_reduce ) abort");
}

TEST(NcclGroup, WhatNeverEndsIsAbortedAtTheDeadline) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice};
  const std::string late = " did not end within 0.05 s (cluster.hang_timeout_s)";
  fake.stop();
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_THAT(error_with([&] { nccl::make_data_plane(*comm, kDevice, fake.api(), 0.05); }),
              AllOf(StartsWith("start of NCCL on rank 0 of 1 ("), HasSubstr(late)));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_EQ(fake.calls(), "id init abort");
  fake.reset();
  const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 0.05);
  fake.reset();
  fake.stop();
  std::vector<float> values(8), scratch(8);
  const Vec<float> memory(values.data(), 8);
  {
    const auto exchange = plane->all_to_all(ctx, {memory, 4, {scratch.data(), 8}});
    exchange->add(std::vector<int64_t>{0, 8});
    EXPECT_FALSE(exchange->poll()) << "which never waits";
    EXPECT_THAT(error_with([&] { exchange->wait(); }),
                AllOf(StartsWith("all_to_all on rank 0 of 1 ("), HasSubstr(late)));
  }
  EXPECT_EQ(fake.calls(), "( ) abort") << "one abort, and no more rounds";
}

TEST(NcclGroup, AnExchangeThatIsGivenUpAborts) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  const Context ctx{.device = kDevice};
  std::vector<float> values(8), scratch(8);
  const auto plane = nccl::make_data_plane(*comm, kDevice, fake.api(), 10);
  fake.reset();
  plane->all_to_all(ctx, {Vec<float>(values.data(), 8), 4, {scratch.data(), 8}})
      ->add(std::vector<int64_t>{0, 8});
  EXPECT_THAT(fake.calls(), testing::EndsWith("abort"));
}

TEST(NcclGroup, WithoutAnIdThereIsNoGroup) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  fake.set_id_result(2);
  EXPECT_THAT(error_with([&] { nccl::make_data_plane(*comm, kDevice, fake.api(), 10); }),
              AllOf(StartsWith("NCCL gives rank 0 ("),
                    HasSubstr("no id for a group of 1 ranks: unhandled system error")));
  EXPECT_EQ(fake.calls(), "id");
}

TEST(Communicators, AskThePlaneMakerThatTheyComeWith) {
  const FakeNccl fake(ORRERY_FAKE_NCCL);
  const auto comm = make_local_communicator();
  std::vector<const Communicator*> asked;
  comm->set_plane_maker([&](Communicator& its, Device device) {
    asked.push_back(&its);
    return device == kDevice ? nccl::make_data_plane(its, device, fake.api(), 10) : nullptr;
  });
  const auto part = comm->split(0), twin = comm->duplicate();
  EXPECT_EQ(&comm->data(kDevice), &comm->data(kDevice));
  part->data(kDevice);
  twin->data({DeviceType::kDebug});  // the communicator's own
  EXPECT_THAT(asked, ElementsAre(comm.get(), part.get(), twin.get()));
  EXPECT_EQ(fake.calls(), "id init id init");
}

/// The real library without a device: up to its first call of one.
TEST(Nccl, TheRealLibraryTakesTheGroupsArguments) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "what the library does is not ours to sanitize";
#endif
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there is a device";
  std::shared_ptr<const nccl::Api> api;
  try {
    api = nccl::open_api();
  } catch (const Error& e) {
    GTEST_SKIP() << e.what();
  }
  EXPECT_GE(api->version, nccl::kOldestVersion);
  const auto comm = make_local_communicator();
  const std::string error = error_with([&] { nccl::make_data_plane(*comm, kDevice, api, 60); });
  EXPECT_THAT(error, AllOf(StartsWith("start of NCCL failed on rank 0 of 1 ("),
                           HasSubstr("unhandled cuda error")));
}

/// With a device (ORRERY_TEST_DEVICE=cuda): all that one rank can call.
TEST(Nccl, TheRealLibraryMovesDeviceMemory) {
  const Context ctx = testing_support::test_context();
  if (ctx.device.type != DeviceType::kCuda) GTEST_SKIP() << "the tests' device is not cuda";
  const auto comm = make_local_communicator();
  const auto api = nccl::open_api();
  const testing_support::DeviceFloats values(ctx, {1, 2, 3, 4}), copy(ctx, {0, 0, 0, 0});
  {
    const auto plane = nccl::make_data_plane(*comm, ctx.device, api, 60);
    plane->broadcast(ctx, values.vec(), 0);
    plane->all_reduce_sum(ctx, values.vec());
    plane->all_gather(ctx, values.vec(), std::vector<std::vector<Extent>>{{{0, 4}}});
    const auto exchange = plane->all_to_all(ctx, {values.vec(), 2, copy.vec()});
    exchange->add(std::vector<int64_t>{0, 4});
    int pieces = 0;
    while (exchange->wait()) ++pieces;
    EXPECT_EQ(pieces, 2);
  }
  EXPECT_THAT(values.values(), ElementsAre(1, 2, 3, 4));
  nccl::Group group(*comm, ctx.device, api, 60);
  Stream& stream = ctx.stream();
  group.begin("a copy to oneself", stream);
  group.send(0, DeviceArray(values.vec()).bytes());
  group.receive(0, DeviceArray(copy.vec()).bytes());
  group.end();
  group.await_calls(stream);
  EXPECT_THAT(copy.values(), ElementsAre(1, 2, 3, 4));
}

proto::RankDevice gpu_rank(const char* host, int index, const char* gpu) {
  proto::RankDevice rank;
  rank.set_host(host);
  rank.set_device(fmt::format("cuda:{}", index));
  rank.set_key("device");
  rank.set_is_cuda(true);
  rank.set_gpu(gpu);
  rank.set_nccl_version(22809);
  return rank;
}

proto::ClusterSection mode(proto::ClusterSection::DataPlane plane) {
  proto::ClusterSection cluster;
  cluster.set_data_plane(plane);
  return cluster;
}

TEST(PlaneChoice, NcclWhereEachRankHasAGpu) {
  // The same index on two hosts, or under two masks of one host, is another GPU.
  const std::vector<proto::RankDevice> apart = {gpu_rank("a", 0, "x"), gpu_rank("a", 0, "y"),
                                                gpu_rank("b", 0, "z")};
  for (const auto plane : {proto::ClusterSection::AUTO, proto::ClusterSection::NCCL}) {
    const PlaneChoice choice = choose_plane(mode(plane), apart);
    EXPECT_TRUE(choice.nccl);
    EXPECT_EQ(choice.why, "NCCL 2.28.9");
  }
  const PlaneChoice choice = choose_plane(mode(proto::ClusterSection::MPI), apart);
  EXPECT_FALSE(choice.nccl);
  EXPECT_EQ(choice.why, "MPI through host memory (cluster.data_plane is mpi)");
}

TEST(PlaneChoice, OneRankUsesNcclOnDemandAlone) {
  const std::vector<proto::RankDevice> one = {gpu_rank("a", 0, "x")};
  EXPECT_FALSE(choose_plane(mode(proto::ClusterSection::AUTO), one).nccl);
  EXPECT_EQ(choose_plane(mode(proto::ClusterSection::AUTO), one).why, "");
  EXPECT_TRUE(choose_plane(mode(proto::ClusterSection::NCCL), one).nccl);
}

void expect_mpi(const std::vector<proto::RankDevice>& ranks, const std::string& because) {
  const PlaneChoice choice = choose_plane(mode(proto::ClusterSection::AUTO), ranks);
  EXPECT_FALSE(choice.nccl);
  EXPECT_EQ(choice.why, "MPI through host memory, as " + because);
  EXPECT_EQ(error_with([&] { choose_plane(mode(proto::ClusterSection::NCCL), ranks); }, kExitUsage),
            "cluster.data_plane is nccl, but " + because +
                "; mend that, or set cluster.data_plane to mpi, which goes through host memory");
}

TEST(PlaneChoice, MpiWhereNcclCannotBe) {
  expect_mpi({gpu_rank("a", 0, "x"), gpu_rank("a", 1, "y"), gpu_rank("a", 0, "x")},
             "rank 0 (a, cuda:0) and rank 2 (a, cuda:0) share one GPU, which NCCL refuses");
  std::vector<proto::RankDevice> ranks = {gpu_rank("a", 0, "x"), gpu_rank("b", 0, "y")};
  ranks[1].set_nccl_version(22703);
  expect_mpi(ranks,
             "rank 0 (a, cuda:0) has NCCL 2.28.9, rank 1 (b, cuda:0) has 2.27.3, and all must "
             "have the same");
  ranks[1].set_nccl_problem("NCCL (libnccl.so.2) cannot be opened");
  expect_mpi(ranks, "on rank 1 (b, cuda:0), NCCL (libnccl.so.2) cannot be opened");
}

TEST(PlaneChoice, OffCudaThereIsNothingToChoose) {
  proto::RankDevice cpu;
  cpu.set_host("a");
  cpu.set_device("cpu");
  cpu.set_key("device");
  EXPECT_EQ(choose_plane(mode(proto::ClusterSection::AUTO), {cpu, cpu}).why, "");
  EXPECT_EQ(error_with(
                [&] {
                  choose_plane(mode(proto::ClusterSection::NCCL), {cpu, cpu});
                },
                kExitUsage),
            "cluster.data_plane is nccl but device is cpu, and NCCL is for CUDA devices: "
            "set device to cuda, or cluster.data_plane to auto");
  EXPECT_EQ(error_with(
                [&] {
                  choose_plane(mode(proto::ClusterSection::AUTO), {cpu, gpu_rank("b", 0, "x")});
                },
                kExitUsage),
            "rank 0 (a, cpu) and rank 1 (b, cuda:0) are on devices of different kinds: "
            "set device to the one that all have");
}

TEST(PlaneChoice, MpiBetweenLearnersAndActorsOfDifferentKinds) {
  proto::RankDevice cpu;
  cpu.set_host("a");
  cpu.set_device("cpu");
  cpu.set_key("rollout.device");
  const std::vector<proto::RankDevice> ranks = {gpu_rank("a", 0, "x"), gpu_rank("b", 0, "y"), cpu};
  const PlaneChoice choice = choose_plane(mode(proto::ClusterSection::AUTO), ranks);
  EXPECT_FALSE(choice.nccl);
  EXPECT_EQ(choice.why,
            "MPI through host memory, as rank 0 (a, cuda:0) and rank 2 (a, cpu) are on devices of "
            "different kinds");
  EXPECT_EQ(error_with([&] { choose_plane(mode(proto::ClusterSection::NCCL), ranks); }, kExitUsage),
            "cluster.data_plane is nccl, but rank 0 (a, cuda:0) and rank 2 (a, cpu) are on devices "
            "of different kinds; set it to auto");
  std::vector<proto::RankDevice> torn = ranks;
  torn.push_back(gpu_rank("c", 0, "z"));
  torn.back().set_key("rollout.device");
  EXPECT_EQ(error_with([&] { choose_plane(mode(proto::ClusterSection::AUTO), torn); }, kExitUsage),
            "rank 2 (a, cpu) and rank 3 (c, cuda:0) are on devices of different kinds: "
            "set rollout.device to the one that all have");
}

TEST(PlaneChoice, TheCpusRanksDoNotLookForNccl) {
  const auto mine = describe_rank(mode(proto::ClusterSection::NCCL), "device", kDevice, 4);
  EXPECT_EQ(mine.device(), "cpu");
  EXPECT_EQ(mine.nccl_version(), 0);
  EXPECT_EQ(mine.nccl_problem(), "");
  const auto comm = make_local_communicator();
  EXPECT_EQ(set_up_data_plane(*comm, mode(proto::ClusterSection::AUTO), mine), "");
}

}  // namespace
}  // namespace orrery::comm
