// The loop of the supervised stage.
#pragma once

#include "experiments/run.h"

namespace orrery::experiments {

/// Does the SFT steps that are left. Learners train and all other ranks wait for them.
/// Collective over the run's world. False, on every rank, when any learner was asked to
/// stop: the run is saved.
bool train_sft(Run& run);

}  // namespace orrery::experiments
