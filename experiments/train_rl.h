// The loop of the RL stage.
#pragma once

#include "experiments/run.h"

namespace orrery::experiments {

/// Does the RL steps that are left, with the validations and saves that are due.
/// Collective over the run's world. False, on every rank, when any was asked to stop:
/// the run is saved.
bool train_rl(Run& run);

}  // namespace orrery::experiments
