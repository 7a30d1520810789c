// What only several keys of a config together tell, and what it comes to in prompts and
// samples.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::experiments {

/// What no single key can tell: sizes that do not divide, sections that contradict each
/// other, ranks without work. Usage Error naming the keys and what to do. `ranks`: of
/// the job. An evaluation asks only for what it reads: held-out items, not training
/// files nor batch sizes.
enum class ConfigUse { kTraining, kEvaluation };
void check_config(const proto::Config& config, int ranks, ConfigUse use = ConfigUse::kTraining);

/// Sizes in prompts and samples, per step, mini-batch, learner rank and gradient shard;
/// some lines of text for a person. REQUIRES: check_config(config, ranks) passed.
std::string describe_batch(const proto::Config& config, int ranks);

}  // namespace orrery::experiments
