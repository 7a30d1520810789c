// Which library moves data between the devices of a job's ranks: NCCL from GPU to GPU,
// or MPI through host memory.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "proto/config.pb.h"
#include "proto/messages.pb.h"

namespace orrery::comm {

/// What the choice asks of this rank, whose device `key` of the config has chosen.
/// Looks for NCCL where it may be chosen for that many ranks. Usage Error when a CUDA
/// device is not there.
proto::RankDevice describe_rank(const proto::ClusterSection& cluster, const std::string& key,
                                Device device, int ranks);

struct PlaneChoice {
  bool nccl = false;
  /// For a log line: the library, or what stands against NCCL. Empty where there was
  /// nothing to choose.
  std::string why;
};

/// The choice for these ranks, by cluster.data_plane. Usage Error when it is nccl and
/// that cannot be, and when ranks of the same key are on devices of different kinds.
PlaneChoice choose_plane(const proto::ClusterSection& cluster,
                         const std::vector<proto::RankDevice>& ranks);

/// Collective. Chooses for all ranks of `world`, which sets it up for itself and for
/// communicators that are made of it from then on. `mine`: describe_rank()'s. Returns
/// PlaneChoice::why.
std::string set_up_data_plane(Communicator& world, const proto::ClusterSection& cluster,
                              const proto::RankDevice& mine);

}  // namespace orrery::comm
