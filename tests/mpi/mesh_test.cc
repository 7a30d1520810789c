// The groups of ranks along the axes of a mesh.
#include "comm/mesh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/mpi/world.h"

namespace orrery::comm {
namespace {

using testing_support::world;

constexpr Axis kFast{"fast"}, kAbsent{"absent"};

/// The ranks of the group, by their numbers among all.
std::vector<int> members(const AxisGroup& group, int rank) {
  std::vector<int> ranks;
  for (const std::string& text : group.comm().all_gather_bytes(std::to_string(rank)))
    ranks.push_back(std::stoi(text));
  return ranks;
}

TEST(Mesh, ItsAxesSplitTheRanks) {
  Communicator& all = world();
  const int fast = all.size() % 2 == 0 ? 2 : 1, slow = all.size() / fast, rank = all.rank();
  const Mesh mesh({{Axis::kDp, slow}, {kFast, fast}});
  const AxisGroup along_dp(mesh, Axis::kDp, all), along_fast(mesh, kFast, all);
  EXPECT_EQ(along_dp.size(), slow);
  EXPECT_EQ(along_dp.rank(), mesh.coordinate(rank, Axis::kDp));
  EXPECT_EQ(along_fast.size(), fast);
  EXPECT_EQ(along_fast.rank(), mesh.coordinate(rank, kFast));
  std::vector<int> column, row;
  for (int p = 0; p < all.size(); ++p) {
    if (mesh.coordinate(p, kFast) == mesh.coordinate(rank, kFast)) column.push_back(p);
    if (mesh.coordinate(p, Axis::kDp) == mesh.coordinate(rank, Axis::kDp)) row.push_back(p);
  }
  EXPECT_EQ(members(along_dp, rank), column);
  EXPECT_EQ(members(along_fast, rank), row);

  const AxisGroup alone(mesh, kAbsent, all);
  EXPECT_EQ(members(alone, rank), std::vector<int>{rank});
  const AxisGroup whole(Mesh({{Axis::kDp, all.size()}}), Axis::kDp, all);
  EXPECT_EQ(&whole.comm(), &all);
  all.barrier();
}

}  // namespace
}  // namespace orrery::comm
