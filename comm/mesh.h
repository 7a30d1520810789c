// How the ranks that hold one model share its work: along named axes.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

namespace orrery::comm {

/// One way to share the work, by its name: a short word of lower-case letters, a
/// literal.
struct Axis {
  std::string_view name;

  /// Data parallel: each rank learns from samples of its own.
  static const Axis kDp;

  friend bool operator==(const Axis&, const Axis&) = default;
};
inline constexpr Axis Axis::kDp{"dp"};

/// Ranks as the points of a grid. The last axis varies fastest: its neighbours are
/// neighbours as ranks, too. An axis that a mesh does not have is of size 1 there, and
/// every rank's coordinate on it is 0.
class Mesh {
 public:
  struct Dimension {
    Axis axis;
    int size = 1;
  };

  Mesh() = default;  ///< of one rank
  /// Error for a size below 1, and for an axis that is there twice.
  explicit Mesh(std::vector<Dimension> dimensions);

  int size() const;  ///< ranks
  int size(Axis axis) const;
  int coordinate(int rank, Axis axis) const;
  /// The lowest rank of `rank`'s group along the axis: of those that differ from it on
  /// this axis alone.
  int first_of_group(int rank, Axis axis) const;

 private:
  struct Place {
    int size = 1, stride = 1;
  };
  Place place(Axis axis) const;

  std::vector<Dimension> dimensions_;
};

/// A rank's group along an axis of a mesh, and how it talks to it. The ranks of the
/// group are numbered by their coordinates on the axis.
class AxisGroup {
 public:
  /// `all`: the mesh's ranks; must outlive the group. Where the group is all of them,
  /// it talks through `all` itself; otherwise through a communicator split from it, and
  /// the call is collective over `all`.
  AxisGroup(const Mesh& mesh, Axis axis, Communicator& all);

  Communicator& comm() const { return *comm_; }
  int size() const { return comm_->size(); }
  int rank() const { return comm_->rank(); }  ///< this rank's coordinate

 private:
  std::unique_ptr<Communicator> split_;
  Communicator* comm_;
};

}  // namespace orrery::comm
