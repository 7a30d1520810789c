// `orrery train`: the whole job, from a config to trained weights.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "proto/config.pb.h"

namespace orrery {

/// Runs on every rank of `world`; returns the exit code. `config` is checked; `config_yaml` its resolved
/// text. SIGTERM, SIGINT and SIGUSR1 on any rank: the current step is finished, a checkpoint saved, and the
/// code is 0.
int run_training(const proto::Config& config, const std::string& config_yaml, Communicator& world,
                 int local_ranks);

}  // namespace orrery
