// The frozen policy that RL started from, for the KL loss: the model folder's weights,
// or what SFT made of them (or the checkpoint that trainer.resume names). The latter is
// kept in run_dir/reference, so that a resumed run compares with the same policy.
#pragma once

#include <memory>

#include "experiments/job.h"
#include "models/transformer.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// The reference where it is in a folder already. Null when RL is yet to begin from
/// what is trained here, when no reference is needed, and on ranks that only act. Usage
/// Error when RL began without one being kept. Writes nothing.
std::unique_ptr<models::Transformer> load_reference(const Job& job, bool after_sft,
                                                    const storage::TrainState& state);

/// The policy as it is now, where RL begins, written to run_dir/reference by the first
/// learner. Null when none is needed, and on ranks that only act.
std::unique_ptr<models::Transformer> keep_reference(const Job& job);

}  // namespace orrery::experiments
