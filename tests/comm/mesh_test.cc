#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"

namespace orrery::comm {
namespace {

using testing::HasSubstr;

constexpr Axis kOuter{"outer"}, kInner{"inner"}, kAbsent{"absent"};

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Mesh, OfOneRankHasNoAxes) {
  const Mesh mesh;
  EXPECT_EQ(mesh.size(), 1);
  EXPECT_EQ(mesh.size(Axis::kDp), 1);
  EXPECT_EQ(mesh.coordinate(0, Axis::kDp), 0);
}

TEST(Mesh, TheLastAxisVariesFastest) {
  const Mesh mesh({{kOuter, 2}, {Axis::kDp, 4}, {kInner, 3}});
  EXPECT_EQ(mesh.size(), 24);
  EXPECT_EQ(mesh.size(kOuter), 2);
  EXPECT_EQ(mesh.size(Axis::kDp), 4);
  EXPECT_EQ(mesh.size(kInner), 3);
  for (int outer = 0, rank = 0; outer < 2; ++outer) {
    for (int dp = 0; dp < 4; ++dp) {
      for (int inner = 0; inner < 3; ++inner, ++rank) {
        EXPECT_EQ(mesh.coordinate(rank, kOuter), outer);
        EXPECT_EQ(mesh.coordinate(rank, Axis::kDp), dp);
        EXPECT_EQ(mesh.coordinate(rank, kInner), inner);
        EXPECT_EQ(mesh.first_of_group(rank, Axis::kDp), outer * 12 + inner);
        EXPECT_EQ(mesh.first_of_group(rank, kInner), rank - inner);
      }
    }
  }
}

TEST(Mesh, AnAxisThatItDoesNotHaveIsOfSizeOne) {
  const Mesh mesh({{Axis::kDp, 4}});
  EXPECT_EQ(mesh.size(kAbsent), 1);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(mesh.coordinate(rank, kAbsent), 0);
    EXPECT_EQ(mesh.first_of_group(rank, kAbsent), rank);
  }
}

TEST(Mesh, RefusesWhatIsNone) {
  EXPECT_THAT(error_of([] { Mesh({{Axis::kDp, 0}}); }), HasSubstr("0 ranks along dp"));
  EXPECT_THAT(error_of([] {
                Mesh({{Axis::kDp, 2}, {kInner, 1}, {Axis::kDp, 2}});
              }),
              HasSubstr("two axes dp"));
  EXPECT_THAT(error_of([] {
                Mesh({{Axis::kDp, 2}}).coordinate(2, Axis::kDp);
              }),
              HasSubstr("rank 2 of a mesh of 2"));
}

TEST(AxisGroup, OfAllRanksTalksAsTheyDo) {
  const auto all = make_local_communicator();
  const AxisGroup group(Mesh({{Axis::kDp, 1}}), Axis::kDp, *all);
  EXPECT_EQ(&group.comm(), all.get());
  EXPECT_EQ(group.size(), 1);
  EXPECT_EQ(group.rank(), 0);
  EXPECT_THAT(error_of([&] {
                AxisGroup(Mesh({{Axis::kDp, 2}}), Axis::kDp, *all);
              }),
              HasSubstr("a mesh of 2 for 1 rank(s)"));
}

}  // namespace
}  // namespace orrery::comm
