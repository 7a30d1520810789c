// Which ranks learn and which ranks act.
#pragma once

#include "comm/mesh.h"
#include "proto/config.pb.h"

namespace orrery::comm {

/// Ranks [0, learners.size()) learn, and each has its own number in their mesh, too.
/// Colocated: every rank acts, and as many as the gradient shards allow also learn.
/// Split: the ranks that do not learn act.
struct Topology {
  proto::ClusterSection::PlacementMode placement = proto::ClusterSection::COLOCATED;
  int ranks = 1;
  Mesh learners;
  bool is_learner(int rank) const { return rank < learners.size(); }
  bool is_actor(int rank) const {
    return placement == proto::ClusterSection::COLOCATED || rank >= learners.size();
  }
  /// Some ranks follow the learners' weights without learning.
  bool has_followers() const { return learners.size() < ranks; }
  int actors() const {
    return placement == proto::ClusterSection::COLOCATED ? ranks : ranks - learners.size();
  }
};

/// The topology of any number of ranks, as the config wants it. With cluster.learners 0
/// there are as many learners as possible: at most all ranks (colocated) or half of
/// them (split), and a power of two that divides gradient_shards. Another number must
/// be such a power and, when split, leave an actor; otherwise a usage Error says how to
/// fix it.
Topology make_topology(const proto::ClusterSection& cluster, int ranks);

}  // namespace orrery::comm
