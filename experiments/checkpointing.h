// Saving and resuming a run: the driver's state beside the weights and moments, over
// all learner ranks.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "experiments/checkpoint_writer.h"
#include "experiments/job.h"
#include "learners/learner.h"
#include "storage/checkpoint.h"
#include "storage/train_state.h"

namespace orrery::experiments {

/// The newest checkpoint in `folder` that can be used, or an empty path when there is
/// no checkpoint at all. Logs each newer one that is passed over. When there are
/// checkpoints but none can be used, a usage Error says why for the newest ones (or how
/// those of the format before are converted), and then `advice`: a run that begins anew
/// must not overwrite them.
std::filesystem::path newest_usable_checkpoint(const std::filesystem::path& folder,
                                               const std::string& advice);

/// Whether both have the same tensors, in the same order.
bool same_parameters(const models::ParameterTable& a, const models::ParameterTable& b);

/// Usage Error when the checkpoint `path` has a module that is none of the job's, since
/// the next save would be without it.
void refuse_other_modules(const std::filesystem::path& path,
                          std::span<const storage::StoredModule> modules,
                          std::span<const std::string> of_job);

class Checkpointer {
 public:
  Checkpointer(Job& job, std::string config_yaml);

  /// Collective over the learners (no-op elsewhere): has the memory for saves made
  /// ready in the background.
  void prepare(learners::Learner* learner);

  /// Collective over the learners (no-op elsewhere). Waits for the save before, copies,
  /// and leaves writing to the background. A failed save leaves earlier checkpoints
  /// whole: it is reported, at the latest by the next save, and the run goes on.
  /// `must`: waits until the checkpoint is published, and a failure is an Error.
  /// Returns the seconds the step was blocked.
  double save(const storage::TrainState& state, learners::Learner* learner, bool must);

  /// On a learner: a good checkpoint of this step is in the run's folder, as this run
  /// saved it or went on from it. Waits for the save under way. Collective over the
  /// learners.
  bool has(int64_t step);

  /// Waits for the save under way, at the end of a run. `must`: its failure is an
  /// Error; otherwise it is logged.
  void finish(bool must = true);

  /// Seconds in the background of the longest save that has ended since the last call;
  /// does not wait.
  std::optional<double> poll();

  struct Resumed {
    storage::TrainState state;   ///< with start_largest
    bool from_step_0 = false;    ///< there was no checkpoint: the run starts anew
    bool older_program = false;  ///< the checkpoint is of a program without `inputs`
    std::vector<std::string> news,
        warnings;  ///< on rank 0, to be told when nothing refuses any more
  };
  /// Collective over world: finds the checkpoint that trainer.resume asks for, checks
  /// that this run may go on from it (experiments/resume_check.h) and that its policy
  /// has not diverged, loads weights (every rank) and moments (this learner's slice),
  /// and packs the weights. Writes nothing.
  Resumed resume(learners::Learner* learner);

 private:
  std::filesystem::path choose(std::vector<std::string>& news) const;
  /// The checkpoint `chosen`, checked and read. `numerics`: what the job's learners
  /// compute in. `initial`: the largest weight of the model's own.
  void load(const std::filesystem::path& chosen, const std::string& numerics, double initial,
            learners::Learner* learner, Resumed& resumed);
  /// This learner's part. Returns the largest.
  double load_moments(const storage::Checkpoint& checkpoint, int64_t adam_t,
                      learners::Learner& learner) const;
  /// Waits for the save under way. `must`: its failure is an Error; otherwise it is
  /// logged.
  void wait_for_save(bool must);

  Job& job_;
  std::string config_yaml_;
  std::filesystem::path folder_;
  std::unique_ptr<CheckpointWriter> writer_;  // from the first save on
  int64_t saving_step_ = 0;
  std::optional<int64_t> saved_step_;  // of the newest that is known to be good
  std::optional<double> background_seconds_;
};

}  // namespace orrery::experiments
