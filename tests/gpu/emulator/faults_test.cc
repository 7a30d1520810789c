// Faults planted in small kernels and in host code are found; the same code without its
// fault runs.
#include "tests/gpu/emulator/faults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace orrery::emulator_faults {
namespace {

class Faults : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    cudaStreamCreate(&stream_);
  }
  void TearDown() override {
    for (void* data : memory_) cudaFree(data);
    cudaStreamDestroy(stream_);
  }
  float* device(int count) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, static_cast<size_t>(count) * 4), cudaSuccess);
    memory_.push_back(data);
    return static_cast<float*>(data);
  }
  /// 0, 1, 2, ...
  float* numbers(int count) {
    std::vector<float> values(static_cast<size_t>(count));
    std::iota(values.begin(), values.end(), 0.0f);
    float* const to = device(count);
    cudaMemcpy(to, values.data(), values.size() * 4, cudaMemcpyHostToDevice);
    return to;
  }
  std::vector<float> values(const float* from, int count) {
    std::vector<float> to(static_cast<size_t>(count));
    EXPECT_EQ(cudaMemcpy(to.data(), from, to.size() * 4, cudaMemcpyDeviceToHost), cudaSuccess);
    return to;
  }
  void synchronize() { ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }
  template <class Launches>
  void run(const Launches& launches) {
    launches();
    synchronize();
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> memory_;
};
using FaultsDeathTest = Faults;

TEST_F(FaultsDeathTest, AMissingBarrier) {
  float *from = numbers(64), *to = device(64);
  reverse(to, from, 64, Fault::kNone, stream_);
  EXPECT_EQ(values(to, 64)[0], 63);
  EXPECT_DEATH(
      run([&] { reverse(to, from, 64, Fault::kMissing, stream_); }),
      "kernel reverse_kernel, thread [0-9]+ of block \\(0, 0, 0\\): a race: (reads|writes) 4 "
      "bytes .*shared memory \\+ [0-9]+.*, which thread [0-9]+ (wrote|read) with no barrier");
}

TEST_F(FaultsDeathTest, AMissingBarrierOfAWarp) {
  float *from = numbers(32), *to = device(32);
  reverse_warp(to, from, Fault::kNone, stream_);
  EXPECT_EQ(values(to, 32)[0], 31);
  EXPECT_DEATH(run([&] { reverse_warp(to, from, Fault::kMissing, stream_); }),
               "reverse_warp_kernel.*a race.*shared memory");
}

TEST_F(FaultsDeathTest, ATailReadPastTheEnd) {
  float *from = numbers(130), *to = device(130);
  twice(to, from, 130, Fault::kNone, stream_);
  EXPECT_EQ(values(to, 130)[129], 258);
  EXPECT_DEATH(
      run([&] { twice(to, from, 130, Fault::kMissing, stream_); }),
      "twice_kernel, thread 0 of block \\(1, 0, 0\\): reads 4 bytes at .*, which is byte 520 "
      "of an allocation of 520 bytes");
}

TEST_F(FaultsDeathTest, AKernelOnTheHostsMemory) {
  std::vector<float> host(64);
  EXPECT_DEATH(run([&] { twice(device(64), host.data(), 64, Fault::kNone, stream_); }),
               "twice_kernel.*reads 4 bytes at .*, which is no memory of the device");
}

TEST_F(FaultsDeathTest, FreedMemory) {
  float* const from = device(64);
  float* const to = device(64);
  memory_.clear();
  cudaFree(from);
  EXPECT_DEATH(run([&] { twice(to, from, 64, Fault::kNone, stream_); }),
               "twice_kernel.*reads 4 bytes");
}

TEST_F(FaultsDeathTest, TheHostOnADevicesMemory) {
  float* const data = numbers(4);
  EXPECT_DEATH({ static_cast<volatile float*>(data)[0] = 1; }, "");
}

TEST_F(FaultsDeathTest, SharedMemory) {
  write_shared(31, stream_);
  synchronize();
  EXPECT_DEATH(run([&] { write_shared(32, stream_); }),
               "write_kernel.*beyond the end of a variable");
  float* const to = device(1);
  EXPECT_DEATH(
      {
        sum_shared(to, Fault::kNone, stream_);
        std::fprintf(stderr, "the sum is %g", static_cast<double>(values(to, 1)[0]));
        std::abort();
      },
      "the sum is 32");
  EXPECT_DEATH(
      {
        sum_shared(to, Fault::kMissing, stream_);
        std::fprintf(stderr, "the sum is %g", static_cast<double>(values(to, 1)[0]));
        std::abort();
      },
      "the sum is -?nan");
}

TEST_F(FaultsDeathTest, AnAddressThatIsNotAligned) {
  float *from = numbers(8), *to = device(1);
  load_quad(to, from, stream_);
  EXPECT_EQ(values(to, 1)[0], 3);
  EXPECT_DEATH(run([&] { load_quad(to, from + 1, stream_); }),
               "quad_kernel.*not aligned as its type");
}

TEST_F(FaultsDeathTest, ABarrierThatNotAllReach) {
  EXPECT_DEATH(run([&] { part_at_barrier(stream_); }),
               "barrier_kernel.*a deadlock: .* threads wait at __sync");
}

TEST_F(FaultsDeathTest, RacesOfBlocks) {
  ::setenv("ORRERY_EMULATOR_GLOBAL_RACES", "1", 1);  // in the death test's process alone
  const auto count = [&](Fault atomic) {
    auto* const total = reinterpret_cast<unsigned*>(device(1));
    cudaMemset(total, 0, 4);
    count_blocks(total, 10, atomic, stream_);
    synchronize();
    unsigned result = 0;
    cudaMemcpy(&result, total, 4, cudaMemcpyDeviceToHost);
    std::fprintf(stderr, "counted %u", result);
    std::abort();
  };
  EXPECT_DEATH(count(Fault::kNone), "counted 10");
  EXPECT_DEATH(count(Fault::kMissing), "count_kernel.*a race.*of another block");
  ::unsetenv("ORRERY_EMULATOR_GLOBAL_RACES");
}

TEST_F(FaultsDeathTest, AMissingWaitForAnothersCopy) {
  float *from = numbers(64), *to = device(64);
  EXPECT_DEATH(run([&] { copy_through(to, from, false, Fault::kMissing, stream_); }),
               "copy_kernel.*a race");
}

// The poison of a late copy shows as a NaN, in about half of the copies.
TEST_F(Faults, AMissingWaitForAnAsynchronousCopy) {
  float *from = numbers(64), *to = device(64);
  copy_through(to, from, false, Fault::kNone, stream_);
  EXPECT_EQ(values(to, 64)[0], 63);
  copy_through(to, from, true, Fault::kMissing, stream_);
  int poisoned = 0;
  for (const float x : values(to, 64)) poisoned += std::isnan(x);
  EXPECT_GT(poisoned, 0);
}

// Memory that nobody wrote is NaN, which no weight of 0 hides.
TEST_F(Faults, APageOfNaNThatLeaks) {
  float *page = device(32), *to = device(1);
  const float three[] = {1, 2, 3};
  cudaMemcpy(page, three, sizeof three, cudaMemcpyHostToDevice);
  add_page(to, page, 3, Fault::kNone, stream_);
  EXPECT_EQ(values(to, 1)[0], 6);
  add_page(to, page, 3, Fault::kMissing, stream_);
  EXPECT_TRUE(std::isnan(values(to, 1)[0]));
}

// Work is done when somebody waits for it, and not before.
TEST_F(Faults, AMissingWaitForAStream) {
  float *from = numbers(64), *to = device(64);
  std::vector<float> host(64, -1.0f);
  twice(to, from, 64, Fault::kNone, stream_);
  cudaMemcpyAsync(host.data(), to, 256, cudaMemcpyDeviceToHost, stream_);
  EXPECT_EQ(host[1], -1);  // it forgot to wait
  synchronize();
  EXPECT_EQ(host[1], 2);
}

// Another stream's work comes before or after, as the seed has it, unless it waits.
TEST_F(Faults, AMissingWaitForAnEvent) {
  float* const from = numbers(64);
  cudaStream_t other = nullptr;
  cudaStreamCreate(&other);
  cudaEvent_t event = nullptr;
  cudaEventCreate(&event);
  int early = 0;
  for (const bool waits : {true, false}) {
    for (int i = 0; i < 40; ++i) {
      float *middle = device(64), *to = device(64);  // NaN
      twice(middle, from, 64, Fault::kNone, stream_);
      cudaEventRecord(event, stream_);
      if (waits) cudaStreamWaitEvent(other, event, 0);
      twice(to, middle, 64, Fault::kNone, other);
      cudaStreamSynchronize(other);
      const float got = values(to, 64)[1];
      if (waits) {
        ASSERT_EQ(got, 4);
      }
      early += std::isnan(got);
    }
  }
  EXPECT_GT(early, 0);
  cudaEventDestroy(event);
  cudaStreamDestroy(other);
}

TEST_F(Faults, MisuseIsTheRuntimesError) {
  const auto launch = [&](int threads, int bytes, bool ask) {
    launch_with(threads, bytes, ask, stream_);
    return cudaGetLastError();
  };
  EXPECT_EQ(launch(1024, 48 << 10, false), cudaSuccess);
  EXPECT_EQ(launch(1025, 0, false), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(0, 0, false), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(32, (48 << 10) + 4, false), cudaErrorInvalidValue);
  EXPECT_EQ(launch(32, 227 << 10, true), cudaSuccess);
  EXPECT_EQ(launch(32, (227 << 10) + 4, true), cudaErrorInvalidValue);
  float* const data = device(4);
  float host[4] = {};
  EXPECT_EQ(cudaMemcpy(data, host, 20, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpy(host, host, 16, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  void* none = nullptr;
  EXPECT_EQ(cudaMalloc(&none, size_t{1} << 50), cudaErrorMemoryAllocation);
  cudaGetLastError();
}

}  // namespace
}  // namespace orrery::emulator_faults
