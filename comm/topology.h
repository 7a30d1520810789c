// Which rank does what.
#pragma once

#include <string>

namespace orrery {

enum class Placement { kColocated, kSplit };

/// Colocated: every rank is learner and actor. Split: ranks [0, learners) learn, the rest act.
struct Topology {
  Placement placement = Placement::kColocated;
  int ranks = 1;
  int learners = 1;
  bool is_learner(int rank) const { return rank < learners; }
  bool is_actor(int rank) const { return placement == Placement::kColocated || rank >= learners; }
  int actors() const { return placement == Placement::kColocated ? ranks : ranks - learners; }
};

/// Checks: learners >= 1 (0 in config: all ranks when colocated, half of them when split), a power of two
/// that divides gradient_shards; split needs at least one actor. Usage Error says how to fix it.
Topology make_topology(Placement placement, int ranks, int configured_learners, int gradient_shards);

}  // namespace orrery
