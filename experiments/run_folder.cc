#include "experiments/run_folder.h"

#include <chrono>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace orrery {

void make_run_dir(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_usage("run_dir: cannot create {}: {}", path.string(), error.message());
}

RunFolder::RunFolder(std::filesystem::path path) : path_(std::move(path)) {}

void RunFolder::take(bool make) {
  if (taken_ || (!make && !std::filesystem::is_directory(path_))) return;
  make_run_dir(path_);
  // Ranks of a killed mpirun notice a moment later: a run resumed at once waits for them.
  lock_ = std::make_unique<FileLock>(path_ / ".lock", std::chrono::seconds(5));
  taken_ = true;
}

}  // namespace orrery
