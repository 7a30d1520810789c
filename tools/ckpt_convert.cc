// `orrery ckpt convert`.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "launch/run_folder.h"
#include "storage/checkpoint_v2.h"
#include "storage/new_folder.h"
#include "tools/ckpt_actions.h"

namespace orrery::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// A checkpoint that NEW has.
struct Converted {
  fs::path path;
  int64_t step = 0;
  std::string hash;
};

/// A checkpoint of OLD that NEW has not, since it is not good.
struct PassedOver {
  fs::path path;
  std::string reason;
};

struct Result {
  std::vector<Converted> converted;
  std::vector<PassedOver> passed_over;
};

fs::path without_slash(const fs::path& path) {
  return (path.has_filename() ? path : path.parent_path()).lexically_normal();
}

/// Copies what `from` holds, durably, but for what `skip` names.
void copy_contents(const fs::path& from, const fs::path& to,
                   const std::function<bool(const fs::path&)>& skip = {}) {
  fs::create_directories(to);
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const fs::path target = to / entry.path().filename();
    if (skip && skip(entry.path())) continue;
    if (entry.is_symlink()) {
      fs::copy_symlink(entry.path(), target);
    } else if (entry.is_directory()) {
      copy_contents(entry.path(), target, skip);
    } else if (entry.is_regular_file()) {
      fs::copy_file(entry.path(), target);
      sync_path(target);
    }
  }
  sync_path(to);
}

/// A checkpoint of OLD that has been found good, of either version.
class Original {
 public:
  /// Error when it is not good, or not of this step.
  Original(const fs::path& folder, int64_t step) : folder_(folder) {
    if (storage::checkpoint_version(folder) == storage::kFormatVersion) {
      current_.emplace(folder);
    } else {
      old_ = std::make_unique<storage::CheckpointV2>(folder);
    }
    const int64_t found = current_ ? current_->info().step : old_->step();
    if (found != step) fail("{}: its manifest is of step {}", folder.string(), found);
  }

  /// Writes it as `to`: converted, or copied when it needs no conversion. Returns the
  /// hash.
  std::string write(const fs::path& to) const {
    if (old_) return old_->convert(to);
    copy_contents(folder_, to);
    std::string hash = storage::checkpoint_hash(storage::Checkpoint(to));
    if (hash != storage::checkpoint_hash(*current_))
      fail("{}: the numbers that were copied are not those of {}", to.string(), folder_.string());
    return hash;
  }

 private:
  fs::path folder_;
  std::optional<storage::Checkpoint> current_;
  std::unique_ptr<storage::CheckpointV2> old_;
};

/// Writes the checkpoints of `old`, which lies in OLD, into `to`. Those that are not
/// good are passed over; a failure to write is an Error.
Result write_checkpoints(const std::vector<storage::CheckpointSummary>& all, const fs::path& to) {
  Result result;
  for (const storage::CheckpointSummary& s : all) {
    std::optional<Original> original;
    const auto pass_over = [&](const char* reason) {
      spdlog::warn("{} is passed over: {}", s.folder.string(), reason);
      result.passed_over.push_back({s.folder, reason});
    };
    try {
      original.emplace(s.folder, s.step);
    } catch (const Error& error) {
      pass_over(error.what());
      continue;
    } catch (const fs::filesystem_error& error) {
      pass_over(error.what());
      continue;
    }
    const fs::path name = s.folder.filename();
    result.converted.push_back({name, s.step, original->write(to / name)});
  }
  return result;
}

/// Writes OLD, a run or a folder of checkpoints, into the empty folder `to`. Paths of
/// the result are relative to `to`.
Result write_run(const fs::path& from, const fs::path& to) {
  const fs::path old = checkpoints_of(from);
  const fs::path relative = old == from ? fs::path() : old.filename();
  const auto all = storage::list_checkpoints(old);
  if (all.empty()) fail("{} is no checkpoint and holds none", from.string());
  fs::create_directories(to / relative);
  Result result = write_checkpoints(all, to / relative);
  if (result.converted.empty())
    fail("none of the {} checkpoint(s) in {} can be converted", all.size(), old.string());
  copy_contents(from, to, [&](const fs::path& path) {
    const bool listed = std::any_of(
        all.begin(), all.end(), [&](const auto& checkpoint) { return checkpoint.folder == path; });
    const bool left_by_a_save =
        path.parent_path() == old && path.filename().string().find(".tmp-") != std::string::npos;
    return listed || left_by_a_save || launch::is_run_lock(path);
  });
  for (Converted& c : result.converted) c.path = relative / c.path;
  if (std::ssize(storage::list_checkpoints(to / relative)) != std::ssize(result.converted))
    fail("{} has not the {} checkpoint(s) that were written", to.string(), result.converted.size());
  return result;
}

Result convert_run(const fs::path& from, const fs::path& to) {
  const fs::path whole = fs::absolute(from / "").lexically_normal().parent_path();
  const fs::path run = whole.filename() == "checkpoints" ? whole.parent_path() : from;
  if (launch::run_folder_in_use(run)) {
    fail_usage("a run is using {}; convert it when that has ended, or stop it", run.string());
  }
  storage::NewFolder made(to);
  Result result;
  try {
    result = write_run(from, made.temporary());
  } catch (const fs::filesystem_error& failed) {
    fail("cannot write {}: {}", to.string(), failed.what());
  }
  made.publish();
  for (Converted& c : result.converted) c.path = to / c.path;
  return result;
}

Converted convert_one(const fs::path& from, const fs::path& to) {
  const std::string name = to.filename().string(), step = from.filename().string();
  if (name.starts_with("step_") && step.starts_with("step_") && name != step)
    fail_usage("{}: the checkpoint is {}; name it so", to.string(), step);
  const storage::CheckpointV2 old(from);
  return {to, old.step(), old.convert(to)};
}

void print_json(const fs::path& from, const fs::path& to, const Result& result) {
  ordered_json out = {{"path", to.string()}, {"from", from.string()}};
  out["checkpoints"] = ordered_json::array();
  for (const Converted& c : result.converted)
    out["checkpoints"].push_back({{"path", c.path.string()}, {"step", c.step}, {"hash", c.hash}});
  out["passed_over"] = ordered_json::array();
  for (const PassedOver& p : result.passed_over)
    out["passed_over"].push_back({{"path", p.path.string()}, {"reason", p.reason}});
  fmt::print("{}\n", out.dump());
}

/// How much of OLD it is, and how to go on.
void print_verdict(const fs::path& from, const fs::path& to, const Result& result) {
  const size_t all = result.converted.size() + result.passed_over.size();
  std::string passed;
  for (const PassedOver& p : result.passed_over)
    passed += (passed.empty() ? "; passed over: " : ", ") + p.path.filename().string();
  const bool run = checkpoints_of(to) != to;
  fmt::print(
      "{} is a copy of {} in format version {}, with {} of {} checkpoint(s){}; go on with {}\n",
      to.string(), from.string(), storage::kFormatVersion, result.converted.size(), all, passed,
      run ? fmt::format("run_dir={}", to.string())
          : fmt::format("trainer.resume={}", result.converted.back().path.string()));
}

}  // namespace

void ckpt_convert(const CkptOptions& options) {
  if (options.other.empty()) fail_usage("NEW is empty; name the folder to create");
  const fs::path from = without_slash(options.path), to = without_slash(options.other);
  if (!fs::is_directory(from)) fail_usage("'{}' is not a folder", from.string());
  if (fs::exists(to)) fail_usage("{} exists; name a new folder", to.string());
  if (*fs::relative(fs::absolute(to), fs::absolute(from)).begin() != "..") {
    fail_usage("{} lies in {}, which stays as it is; name another folder", to.string(),
               from.string());
  }
  const bool one = is_checkpoint(from);
  const Result result = one ? Result{{convert_one(from, to)}, {}} : convert_run(from, to);
  if (options.json) {
    print_json(from, to, result);
    return;
  }
  for (const Converted& c : result.converted)
    fmt::print("{}: step {}, hash {}\n", c.path.string(), c.step, c.hash);
  if (!one) print_verdict(from, to, result);
}

}  // namespace orrery::tools
