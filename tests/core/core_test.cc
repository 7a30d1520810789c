#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <climits>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>

#include "core/buffer.h"
#include "core/dtype.h"
#include "core/error.h"
#include "core/file.h"
#include "core/process.h"
#include "core/rng.h"
#include "core/sha256.h"
#include "tests/support/scratch.h"

namespace orrery {
namespace {

// Known answers of Random123's kat_vectors for philox4x32, 10 rounds.
TEST(Philox, MatchesPublishedVectors) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t f = 0xffffffff;
  EXPECT_EQ(philox4x32({f, f, f, f}, {f, f}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, StreamsDifferAndNormalHasUnitVariance) {
  Philox a(7, RngPurpose::kInit), b(7, RngPurpose::kData), c(7, RngPurpose::kInit, 1);
  EXPECT_NE(a(), b());
  EXPECT_NE(a(), c());
  double sum = 0, squares = 0;
  Philox generator(1, RngPurpose::kTest);
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = generator.normal();
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.0, 0.03);
  EXPECT_NEAR(squares / kDraws, 1.0, 0.04);
}

TEST(DType, Bf16RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(f32_to_bf16(1.0f), 0x3F80);
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);             // a tie goes to even
  EXPECT_EQ(f32_to_bf16(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81);  // above the tie
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::nanf("")))));
  EXPECT_EQ(f16_to_f32(0x3C00), 1.0f);
  EXPECT_EQ(f16_to_f32(0x0001), 0x1p-24f);
  EXPECT_EQ(f16_to_f32(0xC000), -2.0f);
  EXPECT_TRUE(std::isinf(f16_to_f32(0x7C00)));
}

TEST(Arena, MergesChunksAndThenAllocatesNothing) {
  Arena arena({}, 1024);
  for (int i = 0; i < 3; ++i) arena.alloc<float>(1 << 20);
  arena.reset();
  const size_t capacity = arena.capacity();
  float* first = arena.alloc<float>(1 << 20);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
  {
    ArenaScope scope(arena);
    arena.alloc<float>(1 << 20);
  }
  EXPECT_EQ(arena.alloc<float>(1), first + (1 << 20));
  EXPECT_EQ(arena.capacity(), capacity);
}

TEST(Arena, WhatWasReservedIsAllThatItGives) {
  const auto step = [](Arena& arena) {
    arena.alloc<float>(1000);
    {
      const ArenaScope scope(arena);
      arena.alloc<char>(1);
      arena.mat<float>(300, 100);
    }
    arena.vec<double>(70);
    arena.alloc<float>(0);
  };
  Arena measuring = Arena::measuring({});
  step(measuring);
  EXPECT_EQ(measuring.peak(), 4032u + 64u + 120'000u);
  EXPECT_EQ(measuring.capacity(), 0u);

  Arena arena;
  arena.reserve(measuring.peak(), "a step", "the.key");
  step(arena);
  EXPECT_EQ(arena.peak(), measuring.peak());
  EXPECT_EQ(arena.capacity(), measuring.peak());
  arena.reserve(1000, "a smaller step", "the.key");
  EXPECT_EQ(arena.capacity(), measuring.peak()) << "it is kept";
  arena.alloc<char>(100'000);
  try {
    arena.alloc<char>(30'000);
    FAIL() << "the arena grew";
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "a smaller step needs 5952 bytes more than the 0.1 MiB of temporary memory planned "
        "for it; lower the.key");
  }
  try {
    arena.reserve(size_t{1} << 60, "a step too large", "the.key or other.key");
    FAIL() << "there is so much memory";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "out of memory: a step too large needs 1099511627776.0 MiB of temporary memory on "
                 "cpu; lower the.key or other.key");
  }
}

TEST(Arena, OverGivenMemoryTakesNoOther) {
  const Buffer memory({}, 8192);
  Arena arena = Arena::over({}, memory.vec<float>());
  EXPECT_EQ(arena.capacity(), 8192u);
  for (int round = 0; round < 2; ++round) {
    arena.reserve(4096, "a step", "the.key");
    EXPECT_EQ(arena.alloc<char>(4000), memory.data());
    EXPECT_EQ(arena.alloc<char>(4096), static_cast<char*>(memory.data()) + 4032);
  }
  EXPECT_THAT(testing_support::error_of([&] { arena.reserve(8193, "a step", "the.key"); }),
              testing::StrEq("out of memory: a step needs 0.0 MiB of temporary memory on cpu and "
                             "0.0 are left; lower the.key"));
  arena.reset();
  EXPECT_THROW(arena.alloc<char>(8193), Error);
}

TEST(Process, CpusOfAQuota) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path mount = scratch.path() / "mount", groups = scratch.path() / "cgroup";
  const auto write = [&](const char* file, const char* text) {
    std::filesystem::create_directories((mount / file).parent_path());
    std::ofstream(mount / file) << text;
  };
  const auto quota = [&](const char* lines) {
    std::ofstream(groups) << lines;
    return quota_cpus(groups, mount);
  };
  EXPECT_EQ(quota_cpus(groups, mount), INT_MAX);  // no control groups here
  EXPECT_EQ(quota("0::/a/b\n"), INT_MAX);
  write("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), INT_MAX);
  write("a/cpu.max", "150000 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), 2);
  EXPECT_EQ(quota("0::/\n"), INT_MAX);
  write("cpu.max", "50000 100000\n");
  EXPECT_EQ(quota("0::/a/b\n"), 1);
  EXPECT_EQ(quota("0::/elsewhere/on/the/host\n"), 1);
  write("cpu.max", "words\n");
  EXPECT_EQ(quota("0::/\nneither\n:\n"), INT_MAX);
  write("cpu/c/cpu.cfs_quota_us", "-1\n");
  write("cpu/c/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota("3:cpuset:/\n1:cpu,cpuacct:/c\n0::/\n"), INT_MAX);
  write("cpu/c/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(quota("3:cpuset:/\n1:cpu,cpuacct:/c\n0::/\n"), 3);
  EXPECT_EQ(quota("3:cpuset:/c\n2:cpuacct:/c\n"), INT_MAX);
}

TEST(File, AtomicWriteReplacesAndErrorsNameThePath) {
  const testing_support::ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  write_file_atomic(folder / "a", "one");
  write_file_atomic(folder / "a", "two");
  EXPECT_EQ(read_file(folder / "a"), "two");
  EXPECT_FALSE(std::filesystem::exists(folder / "a.tmp"));
  try {
    read_file(folder / "missing");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("missing"), std::string::npos);
    EXPECT_EQ(error.exit_code(), kExitFailure);
  }
}

TEST(File, ALockIsWaitedForAndThenRefused) {
  const testing_support::ScratchPath scratch("lock");
  const std::filesystem::path& path = scratch.path();
  auto held = std::make_unique<FileLock>(path, std::chrono::milliseconds(0));
  EXPECT_THROW(FileLock(path, std::chrono::milliseconds(40)), Error);
  std::jthread release([&held] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    held.reset();
  });
  EXPECT_NO_THROW(FileLock(path, std::chrono::seconds(60)));
}

TEST(Sha256, MatchesKnownDigest) {
  const std::string text = "abc";
  EXPECT_EQ(sha256_hex(std::as_bytes(std::span(text))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace orrery
