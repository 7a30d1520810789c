// `orrery eval`: scores of a checkpoint or a Hugging Face folder on a config's held-out items.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "proto/config.pb.h"

namespace orrery {

/// Collective over `world`; rank 0 prints. `checkpoint`: checkpoint folder, run folder, Hugging Face folder,
/// or empty for model.path. Returns the exit code.
int run_evaluation(const proto::Config& config, const std::string& checkpoint, bool json, Communicator& world,
                   int local_ranks);

}  // namespace orrery
