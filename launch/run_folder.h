// The folder of a run (run_dir), and who may write to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/file.h"

namespace orrery::launch {

/// Makes it where it is absent. Usage Error when that cannot be.
void make_run_dir(const std::filesystem::path& path);

/// Removes the rollouts of steps after `step`, which the run does again, those of
/// validations too, and their checksums; says of how many steps there were samples. -1:
/// all. Error when one cannot be removed.
int64_t remove_rollouts_after(const std::filesystem::path& run_dir, int64_t step);

/// Older programs named the rollouts of a run with `sft_steps` steps of SFT by RL's
/// steps alone: rewrites those under the run's steps, and says how many. One that is
/// interrupted may be run again. A file that cannot be read stays as it is, and is
/// told. They wrote none of validations.
int64_t renumber_older_rollouts(const std::filesystem::path& run_dir, int64_t sft_steps);

/// rollouts/step_000123.h5, of a validation rollouts/val_step_000123.h5.
std::filesystem::path rollout_path(const std::filesystem::path& run_dir, int64_t step,
                                   bool validation = false);

/// A file of samples, by its name.
struct RolloutEntry {
  std::filesystem::path path;
  int64_t step = 0;
  bool validation = false;
};

/// Those in `folder` (a run's rollouts/) in the order in which a run makes them: by
/// step, and a step's validation after what the step learned from.
std::vector<RolloutEntry> list_rollouts(const std::filesystem::path& folder);

/// The run's folder, which rank 0 takes for the job, from when on it is this run's and
/// no other's.
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path);

  /// Locks it. Not `make`: only when it is there already, so that a run that cannot
  /// start leaves nothing. Error when another run has it, be it one that `orrery
  /// launch` is about to start again.
  void take(bool make);
  /// On another rank than 0: rank 0 has taken it.
  void note_taken() { taken_ = true; }
  const std::filesystem::path& path() const { return path_; }
  bool taken() const { return taken_; }  ///< from any thread

 private:
  std::filesystem::path path_;
  std::unique_ptr<FileLock> launch_lock_, lock_;
  std::atomic<bool> taken_ = false;
};

}  // namespace orrery::launch
