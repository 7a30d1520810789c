// The folder of a run (run_dir), and who may write to it.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/file.h"

namespace orrery::launch {

/// Makes the folder where it is absent. Usage Error when it cannot be made.
void make_run_dir(const std::filesystem::path& path);

/// Removes the rollouts of the steps after `step` (-1: of all steps), because the run
/// does them again: those of validations too, and the checksums. Returns the number of
/// steps that had samples. Error when a file cannot be removed.
int64_t remove_rollouts_after(const std::filesystem::path& run_dir, int64_t step);

/// Older programs named the rollouts of a run with `sft_steps` steps of SFT by the RL
/// steps alone. This rewrites such files under the run's steps and returns their
/// number. It may be run again after an interruption. A file that cannot be read stays
/// as it is, with a warning. Older programs wrote no rollouts of validations.
int64_t renumber_older_rollouts(const std::filesystem::path& run_dir, int64_t sft_steps);

/// rollouts/step_000123.h5, or of a validation rollouts/val_step_000123.h5.
std::filesystem::path rollout_path(const std::filesystem::path& run_dir, int64_t step,
                                   bool validation = false);

/// A file of samples, as its name describes it.
struct RolloutEntry {
  std::filesystem::path path;
  int64_t step = 0;
  bool validation = false;
};

/// The files of samples in `folder` (a run's rollouts/), in the order in which a run
/// makes them: by step, and a step's validation after what the step learned from.
std::vector<RolloutEntry> list_rollouts(const std::filesystem::path& folder);

/// Whether the file says, by its name, who may use the run's folder that it lies in.
bool is_run_lock(const std::filesystem::path& file);

/// Whether a run, or `orrery launch`, holds the run's folder at this moment. Writes
/// nothing.
bool run_folder_in_use(const std::filesystem::path& run_dir);

/// The run's folder. Rank 0 takes it for the job; from then on it belongs to this run
/// and no other.
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path);

  /// Locks the folder, and makes it when `make` is set. Without `make` it does nothing
  /// where there is no folder, so that a run that cannot start leaves nothing behind.
  /// Error when another run has the folder, even one that `orrery launch` is about to
  /// start again.
  void take(bool make);
  /// For the other ranks: rank 0 has taken the folder.
  void mark_taken() { taken_ = true; }
  const std::filesystem::path& path() const { return path_; }
  bool taken() const { return taken_; }  ///< from any thread

 private:
  std::filesystem::path path_;
  std::unique_ptr<FileLock> launch_lock_, lock_;
  std::atomic<bool> taken_ = false;
};

}  // namespace orrery::launch
