// The data plane over NCCL, for CUDA devices of which each rank has its own.
#pragma once

#include <memory>

#include "comm/nccl_api.h"
#include "comm/nccl_group.h"

namespace orrery::comm::nccl {

/// Collective over `comm`. The collectives over memory of `device`: they copy between
/// devices without the host, and the order of no sum but all_reduce_sum's is NCCL's.
/// Each waits, as Group::await does, until it is done: a peer that has gone is an Error
/// of the operation that needed it. The group is made here.
std::unique_ptr<DataPlane> make_data_plane(Communicator& comm, Device device,
                                           std::shared_ptr<const Api> api, double timeout_seconds);

}  // namespace orrery::comm::nccl
