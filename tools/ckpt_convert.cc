// `orrery ckpt convert`.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/file.h"
#include "storage/checkpoint_v2.h"
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

fs::path without_slash(const fs::path& path) {
  return (path.has_filename() ? path : path.parent_path()).lexically_normal();
}

Converted describe(const fs::path& path) {
  const storage::Checkpoint checkpoint(path);
  return {path, checkpoint.info().step, storage::checkpoint_hash(checkpoint)};
}

/// Copies what `from` holds, durably, but for what `skip` names and for locks.
void copy_contents(const fs::path& from, const fs::path& to,
                   const std::function<bool(const fs::path&)>& skip = {}) {
  fs::create_directories(to);
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const fs::path name = entry.path().filename(), target = to / name;
    if (name.string().starts_with('.') || (skip && skip(entry.path()))) continue;
    if (entry.is_symlink()) {
      fs::copy_symlink(entry.path(), target);
    } else if (entry.is_directory()) {
      copy_contents(entry.path(), target);
    } else if (entry.is_regular_file()) {
      fs::copy_file(entry.path(), target);
      sync_path(target);
    }
  }
  sync_path(to);
}

/// Writes the checkpoint into `to`: converted, or copied when it needs no conversion.
void convert_or_copy(const fs::path& from, const fs::path& to) {
  if (storage::checkpoint_version(from) != storage::kFormatVersion) {
    storage::convert_checkpoint_v2(from, to);
    return;
  }
  const storage::Checkpoint good(from);
  copy_contents(from, to);
}

/// Writes a run, or a folder of checkpoints, into `to`. Those that are not good are
/// passed over.
void convert_run(const fs::path& from, const fs::path& to) {
  const fs::path old = checkpoints_of(from), relative = old.lexically_relative(from);
  const auto all = storage::list_checkpoints(old);
  if (all.empty()) fail("{} is no checkpoint and holds none", from.string());
  int64_t written = 0;
  for (const storage::CheckpointSummary& s : all) {
    try {
      convert_or_copy(s.folder, (to / relative / s.folder.filename()).lexically_normal());
      ++written;
    } catch (const Error& error) {
      spdlog::warn("{} is passed over: {}", s.folder.string(), error.what());
    }
  }
  if (written == 0)
    fail("none of the {} checkpoint(s) in {} can be converted", all.size(), old.string());
  copy_contents(from, to, [&](const fs::path& path) {
    return path == old || (old == from && path.filename().string().starts_with("step_"));
  });
}

/// Converts a run into a temporary folder and publishes that by a rename.
std::vector<Converted> convert_whole_run(const fs::path& from, const fs::path& to) {
  fs::path temporary = to;
  temporary += ".tmp-convert";
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error) fail("cannot create {}: {}", temporary.string(), error.message());
  try {
    convert_run(from, temporary);
    fs::rename(temporary, to);
    sync_path(to.has_parent_path() ? to.parent_path() : fs::path("."));
  } catch (const fs::filesystem_error& failed) {
    fs::remove_all(temporary, error);
    fail("cannot write {}: {}", to.string(), failed.what());
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  std::vector<Converted> converted;
  for (const storage::CheckpointSummary& s : storage::list_checkpoints(checkpoints_of(to)))
    converted.push_back(describe(s.folder));
  return converted;
}

}  // namespace

void ckpt_convert(const CkptOptions& options) {
  const fs::path from = without_slash(options.path), to = without_slash(options.other);
  if (!fs::is_directory(from)) fail_usage("'{}' is not a folder", from.string());
  if (fs::exists(to)) fail_usage("{} exists; name a new folder", to.string());
  const std::string inside = fs::relative(fs::absolute(to), fs::absolute(from)).string();
  if (!inside.starts_with(".."))
    fail_usage("{} lies in {}, which stays as it is; name another folder", to.string(),
               from.string());
  const bool one = is_checkpoint(from);
  std::vector<Converted> converted;
  if (one) {
    const std::string name = to.filename().string(), step = from.filename().string();
    if (name.starts_with("step_") && step.starts_with("step_") && name != step)
      fail_usage("{}: the checkpoint is {}; name it so", to.string(), step);
    storage::convert_checkpoint_v2(from, to);
    converted.push_back(describe(to));
  } else {
    converted = convert_whole_run(from, to);
  }
  if (options.json) {
    ordered_json out = {{"path", to.string()}, {"from", from.string()}};
    out["checkpoints"] = ordered_json::array();
    for (const Converted& c : converted)
      out["checkpoints"].push_back({{"path", c.path.string()}, {"step", c.step}, {"hash", c.hash}});
    fmt::print("{}\n", out.dump());
    return;
  }
  for (const Converted& c : converted)
    fmt::print("{}: step {}, hash {}\n", c.path.string(), c.step, c.hash);
  if (!one)
    fmt::print("{} is a copy of {} in format version {}; go on with run_dir={}\n", to.string(),
               from.string(), storage::kFormatVersion, to.string());
}

}  // namespace orrery::tools
