// The frozen policy that RL started from, for the KL loss: the model folder's weights,
// or what SFT made of them (or the checkpoint that trainer.resume names). The latter is
// kept in run_dir/reference, so that a resumed run compares with the same policy.
#pragma once

#include "experiments/job.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// Gives the job the reference module where it is in a folder already: not when RL is
/// yet to begin from what is trained here, when no reference is needed, and on ranks
/// that only act. Usage Error when RL began without one being kept. Writes nothing.
void load_reference(Job& job, bool after_sft, const storage::TrainState& state);

/// Gives a job that has none the policy as it is now, where RL begins, as its reference
/// module, written to run_dir/reference by the first learner. Does nothing when none is
/// needed, and on ranks that only act.
void keep_reference(Job& job);

}  // namespace orrery::experiments
