// `orrery train`: the whole job, from a config to trained weights.
#pragma once

#include "comm/communicator.h"
#include "proto/config.pb.h"

namespace orrery::experiments {

/// Runs on every rank of the world; returns the exit code. `config` is checked.
/// SIGTERM, SIGINT and SIGUSR1 on any rank: the run is saved and the code is 0.
/// run_dir/status.json says all the while what every rank does, and at last how the run
/// ended; a rank without progress for cluster.hang_timeout_s ends all with exit code 1.
int run_training(const proto::Config& config, comm::CommWorld& ranks);

}  // namespace orrery::experiments
