// `orrery eval`: scores of a checkpoint or a Hugging Face folder on a config's held-out items.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "proto/config.pb.h"

namespace orrery {

/// Unbiased estimate that at least one of k draws is right, given c right of n (Chen et al. 2021): 1 - C(n-c,
/// k) / C(n, k).
double pass_at_k(int n, int correct, int k);

/// Collective over `world`; rank 0 prints. `checkpoint`: checkpoint folder, run folder, Hugging Face folder,
/// or empty for model.path. Returns the exit code.
int run_evaluation(const proto::Config& config, const std::string& checkpoint, bool json, Communicator& world,
                   int local_ranks);

}  // namespace orrery
