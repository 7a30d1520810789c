#include "learners/ordered_reducer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>

#include "comm/communicator.h"
#include "core/error.h"
#include "core/rng.h"
#include "kernels/elementwise.h"
#include "tests/support/random_floats.h"
#include "tests/support/scratch.h"
#include "tests/support/test_device.h"

namespace orrery::learners {
namespace {

using testing::ElementsAre;
using testing_support::downloaded;
using testing_support::random_floats;
using testing_support::test_context;
using testing_support::test_device;

TEST(SlicePlan, CoversEverythingEvenlyAtChunkBounds) {
  using Buckets = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(plan_slices(10, 1, 4).buckets,
            (Buckets{{0, 1, 2, 3, 4}, {4, 5, 6, 7, 8}, {8, 8, 9, 9, 10}}));
  EXPECT_EQ(plan_slices(10, 1, 1).buckets, (Buckets{{0, 10}}));
  EXPECT_EQ(plan_slices(5, 16, 4).buckets, (Buckets{{0, 0, 0, 0, 5}}));
  EXPECT_EQ(plan_slices(0, 16, 2).buckets, (Buckets{{0, 0, 0}}));
  EXPECT_EQ(plan_slices(10, 1, 4).extents(1), (std::vector<Extent>{{1, 2}, {5, 6}, {8, 9}}));
  for (const int64_t elements : {1, 17, 4096, 100003, 3000000}) {
    for (const int ranks : {1, 2, 3, 8}) {
      const SlicePlan plan = plan_slices(elements, 64, ranks);
      EXPECT_LE(plan.buckets.size(), 64u);
      EXPECT_EQ(plan.elements(), elements);
      EXPECT_EQ(plan.ranks(), ranks);
      int64_t cursor = 0;
      for (const auto& offsets : plan.buckets) {
        EXPECT_EQ(offsets.front(), cursor);
        for (size_t r = 0; r + 1 < offsets.size(); ++r) {
          EXPECT_LE(offsets[r], offsets[r + 1]);
          EXPECT_TRUE(offsets[r] % 64 == 0 || offsets[r] == elements);
        }
        cursor = offsets.back();
      }
      int64_t least = elements, most = 0;
      for (const auto& extents : plan.all_extents()) {
        least = std::min(least, total_size(extents));
        most = std::max(most, total_size(extents));
      }
      EXPECT_LE(most - least, 2 * 64) << elements << " elements, " << ranks << " ranks";
    }
  }
}

/// The definition: leaves of a complete binary tree, every node left + right.
float tree_sum(const std::vector<std::vector<float>>& leaves, size_t first, size_t count,
               size_t element) {
  if (count == 1) return leaves[first][element];
  const float left = tree_sum(leaves, first, count / 2, element);
  const float right = tree_sum(leaves, first + count / 2, count / 2, element);
  return left + right;
}

/// Writes elements [begin, end) of `values`, which lie in one region, to the buffer.
void write(const Context& ctx, const FlatView& buffer, int64_t begin, int64_t end,
           const std::vector<float>& values) {
  upload(ctx, Vec<float>(buffer.at(begin), end - begin),
         Span<const float>(values).subspan(begin, end - begin));
}

const auto kWhole = [](int64_t /*shard*/) { return false; };
const auto kNobody = [](int64_t /*begin*/) {};

/// Sums shards [first, first + count): fill(shard, buffer, merge) writes a shard's
/// gradient over NaN and calls merge(begin) for what is final, by_region(shard) is
/// begin_shard's argument. told(begin) hears from where on the result is final.
template <class Fill, class ByRegion, class Told>
void sum(ShardTree& tree, const Context& ctx, int64_t first, int64_t count, const Fill& fill,
         const ByRegion& by_region, const Told& told) {
  tree.begin(ctx);
  for (int64_t s = 0; s < count; ++s) {
    const bool last = s + 1 == count;
    const FlatView buffer = tree.begin_shard(by_region(first + s));
    EXPECT_EQ(tree.final_from(), buffer.size());
    kernels::fill(ctx, {.y = buffer.memory(), .value = std::numeric_limits<float>::quiet_NaN()});
    fill(first + s, buffer, [&](int64_t begin) {
      tree.merge(begin);
      if (last) told(tree.final_from());
    });
    tree.end_shard();
    if (last) told(tree.final_from());
  }
}

TEST(ShardTree, HasTheBitsOfTheRecursiveDefinition) {
  constexpr size_t kElements = 70001;  // more than a thread's grain
  std::vector<std::vector<float>> leaves;
  for (uint64_t s = 0; s < 16; ++s) leaves.push_back(random_floats(kElements, s));
  for (const int64_t count : {1, 2, 4, 8, 16}) {
    for (const int threads : {1, 3}) {
      const Context ctx = test_context(threads);
      ShardTree tree(test_device(), {0, kElements}, count);
      std::vector<int64_t> order;
      // Twice: a used tree must not leak the last sum into the next.
      for (int round = 0; round < 2; ++round) {
        order.clear();
        std::vector<int64_t> told;
        sum(
            tree, ctx, 100, count,
            [&](int64_t shard, const FlatView& buffer, const auto& merge) {
              order.push_back(shard);
              // From the end, telling now and then.
              for (int64_t end = kElements, begin = 60000; end > 0; end = begin, begin -= 20000) {
                write(ctx, buffer, begin, end, leaves[static_cast<size_t>(shard - 100)]);
                if (shard % 2 == 1 && begin > 0) merge(begin);
              }
            },
            kWhole, [&](int64_t begin) { told.push_back(begin); });
        const std::vector<float> total = downloaded(ctx, tree.result());
        if (count == 1) {
          EXPECT_THAT(told, ElementsAre(0));
        } else {
          EXPECT_THAT(told, ElementsAre(60000, 40000, 20000, 0)) << "of the last shard";
        }
        for (size_t i = 0; i < kElements; i += 37) {
          ASSERT_EQ(std::bit_cast<uint32_t>(total[i]),
                    std::bit_cast<uint32_t>(tree_sum(leaves, 0, static_cast<size_t>(count), i)))
              << count << " shards, element " << i;
        }
      }
      EXPECT_EQ(tree.memory_bytes(),
                (std::countr_zero(static_cast<uint64_t>(count)) + 1) * kElements * sizeof(float));
      ASSERT_EQ(order.size(), static_cast<size_t>(count));
      EXPECT_EQ(order.front(), 100);
      EXPECT_EQ(order.back(), 100 + count - 1);
    }
  }
  EXPECT_THROW(ShardTree(test_device(), {0, 10}, 3), Error);
}

TEST(ShardTree, SumsInGivenMemoryAndTakesNoOther) {
  constexpr int64_t kElements = 1000;
  const Context ctx = test_context();
  std::vector<std::vector<float>> leaves;
  for (uint64_t s = 0; s < 8; ++s) leaves.push_back(random_floats(kElements, s));
  const auto fill = [&](int64_t shard, const FlatView& buffer, const auto& /*merge*/) {
    write(ctx, buffer, 0, kElements, leaves[static_cast<size_t>(shard)]);
  };
  for (const int64_t count : {1, 2, 8}) {
    ShardTree tree(test_device(), {0, kElements}, count), own(test_device(), {0, kElements}, count);
    sum(own, ctx, 0, count, fill, kWhole, kNobody);
    const int64_t needed =
        (static_cast<int64_t>(own.memory_bytes() / sizeof(float)) + 15) / 16 * 16;
    const Buffer memory(test_device(), static_cast<size_t>(needed + 5) * sizeof(float));
    const Vec<float> rest = tree.use_memory(memory.vec<float>(), /*by_region=*/false);
    EXPECT_EQ(rest.size, 5);
    sum(tree, ctx, 0, count, fill, kWhole, kNobody);
    EXPECT_EQ(tree.result().data, memory.vec<float>().data);
    EXPECT_EQ(tree.memory_bytes(), 0u);
    EXPECT_EQ(downloaded(ctx, tree.result()), downloaded(ctx, own.result()));
    EXPECT_THAT(testing_support::error_of([&] { tree.use_memory(rest, /*by_region=*/false); }),
                testing::HasSubstr("out of memory: the gradients of " + std::to_string(count) +
                                   " shard(s)"));
  }
}

TEST(ShardTree, AWindowHasTheBitsOfAWholeBuffer) {
  // Regions of several sizes, one of them empty; the first is written until the end.
  const std::vector<int64_t> regions = {0, 5000, 45000, 45000, 46003, 90001};
  const int64_t elements = regions.back();
  std::vector<std::vector<float>> leaves;
  for (uint64_t s = 0; s < 8; ++s)
    leaves.push_back(random_floats(static_cast<size_t>(elements), s));
  leaves[3].assign(leaves[3].size(), -0.0f);  // as a shard without rows leaves it, but for the sign
  const Context ctx = test_context(2);
  for (const int64_t count : {1, 2, 4, 8}) {
    for (const int64_t whole_shard :
         {int64_t{-1}, int64_t{1}, int64_t{3}}) {  // one that is not told by region
      ShardTree windowed(test_device(), regions, count), whole(test_device(), {0, elements}, count);
      const auto fill = [&](int64_t shard, const FlatView& buffer, const auto& merge) {
        if (shard == 5) return kernels::fill(ctx, {.y = buffer.memory()});  // without rows
        const std::vector<float>& leaf = leaves[static_cast<size_t>(shard)];
        write(ctx, buffer, 0, 2500, leaf);
        for (size_t r = regions.size() - 1; r > 1; --r) {
          write(ctx, buffer, regions[r - 1], regions[r], leaf);
          if (shard != whole_shard) merge(regions[r - 1]);
        }
        write(ctx, buffer, 2500, 5000, leaf);
      };
      for (int round = 0; round < 2; ++round) {
        std::vector<int64_t> told;
        sum(
            windowed, ctx, 0, count, fill, [&](int64_t shard) { return shard != whole_shard; },
            [&](int64_t begin) { told.push_back(begin); });
        sum(whole, ctx, 0, count, fill, kWhole, kNobody);
        const auto found = downloaded(ctx, windowed.result()),
                   expected = downloaded(ctx, whole.result());
        EXPECT_EQ(std::memcmp(found.data(), expected.data(), expected.size() * sizeof(float)), 0)
            << count << " shards, whole " << whole_shard;
        EXPECT_EQ(told.back(), 0);
      }
      // log2(count) buffers and a window; a shard that is not told by region makes the
      // window whole.
      const bool is_whole = whole_shard >= 0 && whole_shard < count;
      const int64_t full = std::max(std::countr_zero(static_cast<uint64_t>(count)), 1);
      const int64_t last = count == 1 ? 0 : is_whole ? elements : 5000 + 90001 - 46003;
      EXPECT_EQ(windowed.memory_bytes(),
                static_cast<size_t>(full * elements + last) * sizeof(float));
    }
  }
}

TEST(ShardTree, RefusesAWindowThatIsNotToldByRegion) {
  ShardTree tree(test_device(), {0, 10, 20, 30}, 2);
  tree.begin(test_context());
  tree.begin_shard(/*by_region=*/true);
  tree.end_shard();
  tree.begin_shard(/*by_region=*/true);
  EXPECT_THROW(tree.merge(15), Error);
}

TEST(ShardTree, ASumThatWasGivenUpLeavesNothingBehind) {
  const int64_t elements = 100;
  const Context ctx = test_context();
  ShardTree tree(test_device(), {0, 10, elements}, 4);
  const auto fill = [&](int64_t shard, const FlatView& buffer, const auto& /*merge*/) {
    write(ctx, buffer, 0, elements,
          std::vector<float>(static_cast<size_t>(elements), static_cast<float>(shard + 1)));
  };
  for (const int64_t shards : {1, 2, 3}) {  // done when the sum is given up
    tree.begin(test_context());
    for (int64_t s = 0; s < shards; ++s) {
      fill(s, tree.begin_shard(/*by_region=*/false), kNobody);
      tree.end_shard();
    }
    tree.begin_shard(/*by_region=*/false);
    sum(tree, test_context(), 0, 4, fill, kWhole, kNobody);
    EXPECT_THAT(downloaded(ctx, tree.result()), testing::Each(10.0f));
  }
}

}  // namespace
}  // namespace orrery::learners
