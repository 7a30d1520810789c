// The twins of the tensor cores' instructions: products against the definition of a
// step (kernels/dot16.h), layouts against the instructions' descriptions, and what is
// found of their misuse.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "tests/gpu/emulator/fragments.h"
#include "tests/gpu/operands.h"

namespace orrery::emulator_faults {
namespace {

class TensorCore : public ::testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    cudaStreamCreate(&stream_);
  }
  void TearDown() override {
    for (void* data : memory_) cudaFree(data);
    cudaStreamDestroy(stream_);
  }
  template <class T>
  T* device(size_t count) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, count * sizeof(T)), cudaSuccess);
    memory_.push_back(data);
    return static_cast<T*>(data);
  }
  template <class T>
  std::vector<T> values(const T* from, size_t count) {
    std::vector<T> to(count);
    EXPECT_EQ(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return to;
  }
  void synchronize() { ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }
  template <class Launches>
  void run(const Launches& launches) {
    launches();
    synchronize();
  }
  std::vector<uint32_t> loaded(const MatrixLoad& load) {
    auto* const to = device<uint32_t>(32 * 4 + 130);
    load_matrices(to, load, stream_);
    return values(to, 32 * static_cast<size_t>(load.matrices));
  }

  cudaStream_t stream_ = nullptr;
  std::vector<void*> memory_;
};
using TensorCoreDeathTest = TensorCore;

// Every kind of row meets every kind of column, and every kind of accumulator both.
TEST_F(TensorCore, AProductIsAStepOfEachOutput) {
  constexpr int kTiles = 600;
  std::vector<Tile> tiles(kTiles);
  for (int t = 0; t < kTiles; ++t) {
    Tile& tile = tiles[static_cast<size_t>(t)];
    const auto seed = static_cast<uint64_t>(t);
    for (int k = 0; k < 16; ++k) {
      for (int row = 0; row < 16; ++row)
        tile.a[row][k] = selftest::operand(2 * seed + 1, row, k, false);
      for (int column = 0; column < 8; ++column)
        tile.b[column][k] = selftest::operand(2 * seed, column, k, true);
    }
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column)
        tile.c[row][column] = std::bit_cast<float>(
            selftest::start_value(seed, row, column, tile.a[row], tile.b[column]));
    }
    if (t % 50 == 0) std::fill_n(tile.a[t % 16], 16, uint16_t{0x8000});
  }
  auto* const on_device = device<Tile>(kTiles);
  cudaMemcpy(on_device, tiles.data(), sizeof(Tile) * kTiles, cudaMemcpyHostToDevice);
  multiply_tiles(on_device, kTiles, 32, stream_);
  const std::vector<Tile> got = values(on_device, kTiles);
  for (size_t t = 0; t < kTiles; ++t) {
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        const uint32_t want = kernels::dot_step(tiles[t].a[row], tiles[t].b[column],
                                                std::bit_cast<uint32_t>(tiles[t].c[row][column]),
                                                kernels::kDot16Rz25);
        ASSERT_EQ(std::bit_cast<uint32_t>(got[t].c[row][column]), want)
            << "tile " << t << ", row " << row << ", column " << column;
      }
    }
  }
}

TEST_F(TensorCore, MatricesAreLoadedByRows) {
  for (const int matrices : {2, 4}) {
    const std::vector<uint32_t> words = loaded({.matrices = matrices});
    for (uint32_t i = 0; i < words.size(); ++i) {
      const uint32_t lane = i % 32, first = i / 32 * 64 + lane / 4 * 8 + lane % 4 * 2;
      EXPECT_EQ(words[i], first | (first + 1) << 16) << "lane " << lane;
    }
  }
}

TEST_F(TensorCore, MatricesAreLoadedByColumns) {
  for (const int matrices : {2, 4}) {
    const std::vector<uint32_t> words = loaded({.matrices = matrices, .transposed = true});
    for (uint32_t i = 0; i < words.size(); ++i) {
      const uint32_t lane = i % 32, first = i / 32 * 64 + lane % 4 * 2 * 8 + lane / 4;
      EXPECT_EQ(words[i], first | (first + 8) << 16) << "lane " << lane;
    }
  }
}

TEST_F(TensorCore, ACopysTailIsZeros) {
  const std::vector<uint16_t> from{1, 2, 3, 4, 5, 6, 7, 8};
  for (const int there : {0, 3, 8}) {
    // No more of it than is read is the device's, but for the address.
    auto* const source = device<uint16_t>(static_cast<size_t>(there));
    cudaMemcpy(source, from.data(), static_cast<size_t>(there) * 2, cudaMemcpyHostToDevice);
    auto* const to = device<uint16_t>(8);
    copy_or_zeros(to, source, there, true, stream_);
    const std::vector<uint16_t> got = values(to, 8);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], i < there ? i + 1 : 0);
  }
}

// The poison of a late copy shows, zeros or not, in about half of the copies.
TEST_F(TensorCore, AMissingWaitForACopysTail) {
  auto* const from = device<uint16_t>(8);
  cudaMemset(from, 0, 16);
  int poisoned = 0;
  for (int i = 0; i < 40; ++i) {
    auto* const to = device<uint16_t>(8);
    copy_or_zeros(to, from, 0, false, stream_);
    poisoned += values(to, 8)[7] == 0xffff;
  }
  EXPECT_GT(poisoned, 0);
}

TEST_F(TensorCoreDeathTest, AWarpThatIsNotWhole) {
  auto* const tiles = device<Tile>(1);
  cudaMemset(tiles, 0, sizeof(Tile));
  EXPECT_DEATH(run([&] { multiply_tiles(tiles, 1, 31, stream_); }),
               "multiply_kernel.*mma.sync by 31 threads of a warp: all 32 must take part");
  EXPECT_DEATH(loaded({.threads = 16}), "load_kernel.*ldmatrix by 16 threads of a warp");
}

TEST_F(TensorCoreDeathTest, RowsThatAreNotAligned) {
  EXPECT_DEATH(loaded({.offset = 8}), "load_kernel.*ldmatrix of a row that is not aligned");
}

TEST_F(TensorCoreDeathTest, RowsBeyondAVariable) {
  EXPECT_DEATH(loaded({.offset = 32}), "load_kernel.*beyond the end of a variable");
}

TEST_F(TensorCoreDeathTest, RowsOutsideOfSharedMemory) {
  EXPECT_DEATH(loaded({.shared = false}), "load_kernel.*ldmatrix of a row that is not in shared");
}

TEST_F(TensorCoreDeathTest, AMissingBarrierBeforeALoad) {
  EXPECT_DEATH(loaded({.barrier = false}), "load_kernel.*a race: (reads 16|writes 2) bytes");
}

}  // namespace
}  // namespace orrery::emulator_faults
