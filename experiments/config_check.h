// Checks what only several keys of a config together can tell, and says what a config
// comes to in prompts and samples.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::experiments {

/// What a config is checked for. An evaluation needs held-out items, but neither
/// training files nor batch sizes.
enum class ConfigUse { kTraining, kEvaluation };

/// Throws a usage Error, which names the keys and says what to do, for what no single
/// key can tell: sizes that do not divide, sections that contradict each other, ranks
/// without work. `ranks` is the number of the job's ranks.
void check_config(const proto::Config& config, int ranks, ConfigUse use = ConfigUse::kTraining);

/// Describes in some lines for a person how many prompts and samples there are per
/// step, mini-batch, learner rank and gradient shard. REQUIRES: check_config(config,
/// ranks) passed.
std::string describe_batch(const proto::Config& config, int ranks);

}  // namespace orrery::experiments
