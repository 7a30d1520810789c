#include "experiments/run_folder.h"

#include <charconv>
#include <chrono>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "core/error.h"

namespace orrery {
namespace {

constexpr const char* kRolloutFolder = "rollouts";
constexpr std::string_view kRolloutPrefix = "step_", kRolloutSuffix = ".h5";

}  // namespace

void make_run_dir(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_usage("run_dir: cannot create {}: {}", path.string(), error.message());
}

std::filesystem::path rollout_path(const std::filesystem::path& run_dir, int64_t step) {
  return run_dir / kRolloutFolder / fmt::format("{}{:06}{}", kRolloutPrefix, step, kRolloutSuffix);
}

int64_t remove_rollouts_after(const std::filesystem::path& run_dir, int64_t step) {
  const std::filesystem::path folder = run_dir / kRolloutFolder;
  if (!std::filesystem::is_directory(folder)) return 0;
  std::vector<std::filesystem::path> later;
  int64_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kRolloutPrefix)) continue;
    int64_t number = 0;
    const char* const end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data() + kRolloutPrefix.size(), end, number);
    const std::string_view suffix(rest, static_cast<size_t>(end - rest));
    if (error != std::errc() || number <= step || !suffix.starts_with(kRolloutSuffix)) continue;
    later.push_back(entry.path());
    count += suffix == kRolloutSuffix ? 1 : 0;
  }
  for (const auto& path : later) {
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error) fail("cannot remove {}: {}", path.string(), error.message());
  }
  return count;
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
