#include "comm/mesh.h"

#include <utility>

#include "core/error.h"

namespace orrery::comm {

Mesh::Mesh(std::vector<Dimension> dimensions) : dimensions_(std::move(dimensions)) {
  for (size_t i = 0; i < dimensions_.size(); ++i) {
    const auto& [axis, size] = dimensions_[i];
    ORRERY_CHECK(size >= 1, "a mesh with {} ranks along {}", size, axis.name);
    for (size_t j = 0; j < i; ++j)
      ORRERY_CHECK(dimensions_[j].axis != axis, "a mesh with two axes {}", axis.name);
  }
}

Mesh::Place Mesh::place(Axis axis) const {
  int stride = 1;
  for (auto it = dimensions_.rbegin(); it != dimensions_.rend(); ++it) {
    if (it->axis == axis) return {it->size, stride};
    stride *= it->size;
  }
  return {};
}

int Mesh::size() const {
  int ranks = 1;
  for (const Dimension& dimension : dimensions_) ranks *= dimension.size;
  return ranks;
}

int Mesh::size(Axis axis) const { return place(axis).size; }

int Mesh::coordinate(int rank, Axis axis) const {
  ORRERY_CHECK(rank >= 0 && rank < size(), "rank {} of a mesh of {}", rank, size());
  const Place its = place(axis);
  return rank / its.stride % its.size;
}

int Mesh::first_of_group(int rank, Axis axis) const {
  return rank - coordinate(rank, axis) * place(axis).stride;
}

AxisGroup::AxisGroup(const Mesh& mesh, Axis axis, Communicator& all) : comm_(&all) {
  ORRERY_CHECK(mesh.size() == all.size(), "a mesh of {} for {} rank(s)", mesh.size(), all.size());
  if (mesh.size(axis) == mesh.size()) return;
  split_ = all.split(mesh.first_of_group(all.rank(), axis));
  comm_ = split_.get();
}

}  // namespace orrery::comm
