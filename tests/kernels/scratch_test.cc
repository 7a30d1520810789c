// Scratch memory of the CPU's kernels: scopes nest, memory is kept and is each thread's
// own.
#include "kernels/cpu/scratch.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>

namespace orrery::kernels::cpu {
namespace {

TEST(Scratch, GivesAlignedMemoryThatDoesNotOverlap) {
  ScratchScope scratch;
  auto* a = scratch.alloc<float>(3);
  auto* b = scratch.alloc<uint8_t>(1);
  auto* c = scratch.alloc<float>(1 << 20);  // beyond the first chunk
  for (const void* p : {static_cast<void*>(a), static_cast<void*>(b), static_cast<void*>(c)})
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % 64, 0U);
  EXPECT_EQ(static_cast<void*>(b), static_cast<void*>(a + 16));
  a[2] = 1.5f;
  c[(1 << 20) - 1] = 2.5f;
  b[0] = 7;
  EXPECT_EQ(a[2], 1.5f);
}

TEST(Scratch, AScopeTakesBackWhatItGave) {
  const ScratchScope outer;
  float* first = nullptr;
  {
    ScratchScope inner;
    first = inner.alloc<float>(100);
  }
  ScratchScope inner;
  EXPECT_EQ(inner.alloc<float>(5), first);
}

TEST(Scratch, IsKeptSoThatEqualCallsTakeNothing) {
  const auto call = [] {
    ScratchScope scratch;
    for (int i = 0; i < 5; ++i) scratch.alloc<float>(400'000);
  };
  call();
  const size_t capacity = scratch_of_this_thread().capacity();
  EXPECT_GE(capacity, size_t{5 * 400'000 * 4});
  for (int i = 0; i < 10; ++i) call();
  EXPECT_EQ(scratch_of_this_thread().capacity(), capacity);
}

TEST(Scratch, IsEachThreadsOwn) {
  ScratchScope scratch;
  float* const mine = scratch.alloc<float>(16);
  std::thread([&] {
    ScratchScope other;
    EXPECT_NE(other.alloc<float>(16), mine);
  }).join();
}

}  // namespace
}  // namespace orrery::kernels::cpu
