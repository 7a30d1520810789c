// The folder of a run (run_dir), and who may write to it.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>

#include "core/file.h"

namespace orrery {

/// Makes it where it is absent. Usage Error when that cannot be.
void make_run_dir(const std::filesystem::path& path);

/// Rank 0: the run's folder, from when on it is this run's and no other's.
class RunFolder {
 public:
  explicit RunFolder(std::filesystem::path path);

  /// Locks it. Not `make`: only when it is there already, so that a run that cannot start leaves nothing.
  /// Error when another run has it.
  void take(bool make);
  const std::filesystem::path& path() const { return path_; }
  bool taken() const { return taken_; }  ///< from any thread

 private:
  std::filesystem::path path_;
  std::unique_ptr<FileLock> lock_;
  std::atomic<bool> taken_ = false;
};

}  // namespace orrery
