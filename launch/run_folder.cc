#include "launch/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/error_report.h"
#include "core/log.h"
#include "launch/heartbeat.h"
#include "launch/supervision.h"
#include "rollout/rollout_file.h"

namespace orrery::launch {
namespace {

constexpr const char* kLock = ".lock";
constexpr const char* kRolloutFolder = "rollouts";
constexpr std::string_view kStepPrefix = "step_", kValidationPrefix = "val_",
                           kRolloutSuffix = ".h5";
constexpr const char* kChecksumSuffix = ".sha256";

/// A file of the rollouts' folder that belongs to a step.
struct FolderEntry : RolloutEntry {
  bool is_samples = false;  ///< else their checksum, or a file that a crash has left
};

std::vector<FolderEntry> folder_entries(const std::filesystem::path& folder) {
  std::error_code failure;
  if (!std::filesystem::is_directory(folder, failure)) return {};
  std::vector<FolderEntry> entries;
  std::filesystem::directory_iterator files(folder, failure);
  for (; !failure && files != std::filesystem::directory_iterator(); files.increment(failure)) {
    const auto& file = *files;
    const std::string whole = file.path().filename().string();
    std::string_view name = whole;
    FolderEntry entry;
    entry.path = file.path();
    entry.validation = name.starts_with(kValidationPrefix);
    if (entry.validation) name.remove_prefix(kValidationPrefix.size());
    if (!name.starts_with(kStepPrefix)) continue;
    name.remove_prefix(kStepPrefix.size());
    const char* const end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data(), end, entry.step);
    const std::string_view suffix(rest, end);
    if (error != std::errc() || !suffix.starts_with(kRolloutSuffix)) continue;
    entry.is_samples = suffix == kRolloutSuffix;
    entries.push_back(std::move(entry));
  }
  if (failure) fail("cannot list {}: {}", folder.string(), failure.message());
  return entries;
}

/// Whether somebody holds a FileLock on the file.
bool is_locked(const std::filesystem::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool locked = ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  ::close(fd);
  return locked;
}

/// Does nothing when the file is gone already.
void remove_file(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::remove(path, error);
  if (error) fail("cannot remove {}: {}", path.string(), error.message());
}

}  // namespace

void make_run_dir(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return;
  const std::string reason = system_reason(error.value());
  if (error == std::errc::no_space_on_device)
    fail("run_dir: cannot create {}: {}", path.string(), reason);
  fail_usage("run_dir: cannot create {}: {}", path.string(), reason);
}

std::filesystem::path rollout_path(const std::filesystem::path& run_dir, int64_t step,
                                   bool validation) {
  return run_dir / kRolloutFolder /
         fmt::format("{}{}{:06}{}", validation ? kValidationPrefix : "", kStepPrefix, step,
                     kRolloutSuffix);
}

std::vector<RolloutEntry> list_rollouts(const std::filesystem::path& folder) {
  std::vector<RolloutEntry> entries;
  for (const FolderEntry& entry : folder_entries(folder)) {
    if (entry.is_samples) entries.push_back(entry);
  }
  std::ranges::sort(entries, [](const RolloutEntry& a, const RolloutEntry& b) {
    return std::tie(a.step, a.validation, a.path) < std::tie(b.step, b.validation, b.path);
  });
  return entries;
}

int64_t remove_rollouts_after(const std::filesystem::path& run_dir, int64_t step) {
  std::set<int64_t> steps;
  for (const FolderEntry& entry : folder_entries(run_dir / kRolloutFolder)) {
    if (entry.step <= step) continue;
    remove_file(entry.path);
    if (entry.is_samples) steps.insert(entry.step);
  }
  return std::ssize(steps);
}

int64_t renumber_older_rollouts(const std::filesystem::path& run_dir, int64_t sft_steps) {
  if (sft_steps <= 0) return 0;  // the two numberings are the same
  std::vector<RolloutEntry> entries = list_rollouts(run_dir / kRolloutFolder);
  std::erase_if(entries, [](const RolloutEntry& entry) { return entry.validation; });
  // The last file comes first: its new name may be the old name of another.
  std::ranges::reverse(entries);
  int64_t count = 0;
  for (const RolloutEntry& entry : entries) {
    try {
      const rollout::RolloutFile file = rollout::read_rollout_file(entry.path);
      if (file.step != file.stage_step) continue;  // after SFT these differ
      const uint64_t step = sft_steps + file.stage_step;
      const std::filesystem::path path = rollout_path(run_dir, step);
      // A file that is there already comes from this run's newer part, which did the
      // step again.
      if (!std::filesystem::exists(path)) {
        rollout::write_rollout_file(path, step, file.groups, file.stage_step,
                                    {file.stage, file.prompt_texts, file.drawn});
      }
    } catch (const Error& error) {
      spdlog::warn(
          "{} may be named by RL's steps alone, as older programs did, and stays as it is: {}",
          entry.path.string(), error.what());
      continue;
    }
    remove_file(entry.path);
    remove_file(entry.path.string() + kChecksumSuffix);
    ++count;
  }
  return count;
}

bool is_run_lock(const std::filesystem::path& file) {
  return file.filename() == kLock || file.filename() == kLaunchLock;
}

bool run_folder_in_use(const std::filesystem::path& run_dir) {
  for (const char* name : {kLock, kLaunchLock}) {
    if (is_locked(run_dir / name)) return true;
  }
  return false;
}

RunFolder::RunFolder(std::filesystem::path path) : path_(std::move(path)) {}

void RunFolder::take(bool make) {
  std::error_code error;
  if (taken_ || (!make && !std::filesystem::is_directory(path_, error))) return;
  make_run_dir(path_);
  if (supervised_attempt(path_) == 0 && !launch_lock_) {
    try {
      launch_lock_ = std::make_unique<FileLock>(path_ / kLaunchLock, std::chrono::seconds(5));
    } catch (const SystemError& busy) {
      if (!std::string_view(busy.what()).starts_with("another run")) throw;
      fail_user_error(
          "another run is using {}, or orrery launch is, about to start its ranks again; "
          "wait for it, stop it, or choose another folder",
          path_.string());
    }
  }
  // Ranks of a killed mpirun notice its end a moment later. A run that is resumed at
  // once waits for them.
  lock_ = std::make_unique<FileLock>(path_ / kLock, std::chrono::seconds(5));
  forget_failure(path_ / kStatusFile);
  taken_ = true;
}

}  // namespace orrery::launch
