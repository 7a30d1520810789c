#include "core/span.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <span>

#include "core/ascii.h"
#include "core/extent.h"

namespace orrery {
namespace {

using testing::ElementsAre;

int64_t sum(Span<const int> numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), int64_t{0});
}
int64_t sum_of_std(std::span<const int> numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), int64_t{0});
}

TEST(Span, TakesWhatStdSpanTakesAndNothingElse) {
  std::vector<int> vector = {1, 2, 3};
  const std::array<int, 2> array = {4, 5};
  Array<int> own = {6, 7};
  EXPECT_EQ(sum(vector), 6);
  EXPECT_EQ(sum(array), 9);
  EXPECT_EQ(sum(own), 13);
  EXPECT_EQ(sum(std::vector{8, 9}), 17) << "a temporary lives as long as the call";
  EXPECT_EQ(sum(std::span(vector)), 6);
  EXPECT_EQ(sum(Span<int>(vector)), 6);
  EXPECT_EQ(sum_of_std(Span<int>(vector)), 6);
  EXPECT_EQ(sum_of_std(own), 13);
  static_assert(!std::is_constructible_v<Span<int>, const std::vector<int>&>);
  static_assert(!std::is_constructible_v<Span<int>, std::vector<int>>,
                "nothing would own the memory");
  static_assert(!std::is_constructible_v<Span<const long>, std::vector<int>&>);
  static_assert(std::is_same_v<decltype(Span(vector)), Span<int>>);
  static_assert(std::is_same_v<decltype(Span(array)), Span<const int>>);
}

TEST(Span, PartsAreViewsOfTheSameMemory) {
  std::vector<int> vector = {0, 1, 2, 3, 4};
  const Span<int> all = vector;
  EXPECT_EQ(all.size(), 5);
  EXPECT_EQ(all.size_bytes(), 20);
  EXPECT_THAT(all.first(2), ElementsAre(0, 1));
  EXPECT_THAT(all.last(2), ElementsAre(3, 4));
  EXPECT_THAT(all.subspan(3), ElementsAre(3, 4));
  EXPECT_THAT(all.subspan(1, 3), ElementsAre(1, 2, 3));
  all.subspan(1, 3).back() = 30;
  EXPECT_EQ(vector[3], 30);
  EXPECT_TRUE(all.subspan(5).empty());
  EXPECT_TRUE(Span<int>().empty());
}

TEST(Span, BytesAreThoseOfItsMemory) {
  std::vector<uint16_t> vector = {0, 0xFFFF};
  const Span<uint16_t> all = vector;
  EXPECT_EQ(as_bytes(all).size(), 4);
  as_writable_bytes(all)[1] = std::byte{1};
  EXPECT_EQ(vector[0], 0x0100);
  EXPECT_EQ(as_bytes(all)[3], std::byte{0xFF});
}

TEST(Span, ElementsOfIsAnExtent) {
  std::vector<int> vector = {0, 1, 2, 3, 4};
  EXPECT_THAT(elements_of(Span<int>(vector), {1, 3}), ElementsAre(1, 2));
  EXPECT_THAT(elements_of(std::span(vector), {4, 5}), ElementsAre(4));
  EXPECT_TRUE(elements_of(Span<int>(vector), {5, 5}).empty());
}

TEST(Ascii, BytesHaveNoSign) {
  EXPECT_EQ(byte_of('\xFF'), 255);
  EXPECT_TRUE(is_control('\t'));
  EXPECT_FALSE(is_control(' '));
  EXPECT_FALSE(is_control('\xC3')) << "the first byte of a letter in UTF-8";
}

TEST(Array, IsAVectorWithSignedSizes) {
  Array<int> array(3, 7);
  array[2] = 1;
  array.push_back(5);
  array.append(std::array{8, 9});
  EXPECT_THAT(array, ElementsAre(7, 7, 1, 5, 8, 9));
  EXPECT_EQ(array.size(), 6);
  array.resize(2);
  EXPECT_EQ(array, (Array<int>{7, 7}));
  array.assign(2, 0);
  EXPECT_EQ(array.vector(), (std::vector<int>{0, 0}));
  EXPECT_EQ(Array<int>(std::vector{1, 2}), (Array<int>{1, 2}));
  EXPECT_EQ((Array<int>(int64_t{2})), (Array<int>{0, 0}));
}

}  // namespace
}  // namespace orrery
