#include "comm/topology.h"

#include "core/error.h"

namespace orrery::comm {
namespace {

bool is_power_of_two(int value) { return value > 0 && (value & (value - 1)) == 0; }

/// The largest number of learners that `shards` allows and that is at most `limit`.
int best_learners(int limit, int shards) {
  int learners = 1;
  while (learners * 2 <= limit && shards % (learners * 2) == 0) learners *= 2;
  return learners;
}

}  // namespace

Topology make_topology(const proto::ClusterSection& cluster, int ranks) {
  const int configured_learners = cluster.learners(), gradient_shards = cluster.gradient_shards();
  ORRERY_CHECK(ranks >= 1, "{} ranks", ranks);
  if (!is_power_of_two(gradient_shards)) {
    fail_usage("cluster.gradient_shards is {}: it must be a power of two (1, 2, 4, 8, ...)",
               gradient_shards);
  }
  if (configured_learners < 0) {
    fail_usage("cluster.learners is {}: give the number of learner ranks, or 0 to let it be chosen",
               configured_learners);
  }
  Topology topology;
  topology.placement = cluster.placement();
  topology.ranks = ranks;
  const bool split = topology.placement == proto::ClusterSection::SPLIT;
  if (split && ranks < 2) {
    fail_usage(
        "cluster.placement: split needs at least 2 ranks (one learner, one actor) but there is 1: "
        "start with mpirun -n 2 or more, or set cluster.placement: colocated");
  }
  const int learners = configured_learners == 0
                           ? best_learners(split ? ranks / 2 : ranks, gradient_shards)
                           : configured_learners;
  if (learners > ranks) {
    fail_usage("cluster.learners is {} but there are {} ranks: lower it, or start more ranks",
               learners, ranks);
  }
  if (split && learners == ranks) {
    fail_usage(
        "cluster.learners is {} of {} ranks, which leaves no actor: "
        "set cluster.learners to at most {}, or start more ranks",
        learners, ranks, best_learners(ranks - 1, gradient_shards));
  }
  if (!is_power_of_two(learners) || gradient_shards % learners != 0) {
    fail_usage(
        "cluster.learners is {}, which cannot share cluster.gradient_shards = {}: "
        "use a power of two that is at most {} (for example {}){}",
        learners, gradient_shards, gradient_shards, best_learners(learners, gradient_shards),
        is_power_of_two(learners) ? ", or raise cluster.gradient_shards" : "");
  }
  topology.learners = Mesh({{Axis::kDp, learners}});
  return topology;
}

}  // namespace orrery::comm
