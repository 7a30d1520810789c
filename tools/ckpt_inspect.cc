// `orrery ckpt ls | show | verify | hash`.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_report.h"
#include "tools/ckpt_actions.h"
#include "tools/ckpt_text.h"

namespace orrery::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// A checkpoint folder as it is, or the newest one of a run folder, good or not.
fs::path newest_checkpoint(const fs::path& path) {
  if (is_checkpoint(path)) return path;
  const auto all = storage::list_checkpoints(checkpoints_of(path));
  if (all.empty()) fail("{} is no checkpoint and holds none", path.string());
  return all.back().folder;
}

/// "policy (11 tensors), reference (11 tensors, not trainable)"
std::string modules_text(std::span<const storage::StoredModule> modules) {
  std::string text;
  for (const storage::StoredModule& module : modules) {
    text += fmt::format("{}{} ({} tensors{})", text.empty() ? "" : ", ", module.name,
                        module.tensors.size(), module.trainable ? "" : ", not trainable");
  }
  return text;
}

}  // namespace

fs::path checkpoints_of(const fs::path& path) {
  if (!fs::is_directory(path)) fail_usage("'{}' is not a folder", path.string());
  return fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path;
}

bool is_checkpoint(const fs::path& path) {
  return fs::exists(path / storage::kManifestFile) || path.filename().string().starts_with("step_");
}

storage::Checkpoint open_good(const fs::path& path) {
  if (is_checkpoint(path)) return storage::Checkpoint(path);
  auto good = storage::latest_good_checkpoint(
      checkpoints_of(path), [](const fs::path& folder, const std::string& reason) {
        spdlog::warn("{} is passed over: {}", folder.string(), reason);
      });
  if (!good) fail("{} is no checkpoint and holds no good one", path.string());
  return std::move(*good);
}

void ckpt_list(const CkptOptions& options) {
  const fs::path folder = checkpoints_of(options.path);
  const auto all = storage::list_checkpoints(folder);
  if (options.json) {
    ordered_json out = ordered_json::array();
    for (const storage::CheckpointSummary& s : all) {
      ordered_json row = {
          {"step", s.step}, {"path", s.folder.string()}, {"good", s.problem.empty()}};
      if (s.problem.empty()) {
        row.update(
            {{"stage", s.info.stage},
             {"stage_step", stage_step(s.info)},
             {"bytes", s.bytes},
             {"unix_time", s.info.unix_time},
             {"reward", s.info.reward ? ordered_json(*s.info.reward) : ordered_json(nullptr)},
             {"ranks", s.saving_ranks}});
      } else {
        row["problem"] = s.problem;
      }
      out.push_back(std::move(row));
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  if (all.empty()) {
    fmt::print("no checkpoints in {}\n", folder.string());
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"step", "stage", "size", "saved", "reward", "ranks", "path"}};
  for (const storage::CheckpointSummary& s : all) {
    const bool good = s.problem.empty();
    rows.push_back(
        {fmt::to_string(s.step), good ? stage_text(s.info) : "-", good ? size_text(s.bytes) : "-",
         good ? time_text(s.info.unix_time) : "-", good ? reward_text(s.info.reward) : "-",
         good ? fmt::to_string(s.saving_ranks) : "-",
         good ? s.folder.string() : fmt::format("{}  BAD: {}", s.folder.string(), s.problem)});
  }
  print_table(rows, {false, true, false, true, false, false, true});
}

void ckpt_show(const CkptOptions& options) {
  const storage::Checkpoint c = open_good(options.path);
  const storage::CheckpointInfo& info = c.info();
  const auto stats = storage::weight_stats(c);
  const std::string hash = storage::checkpoint_hash(c);
  if (options.json) {
    ordered_json out;
    out["path"] = c.folder().string();
    out["step"] = info.step;
    out["stage"] = info.stage;
    out["stage_step"] = stage_step(info);
    out["unix_time"] = info.unix_time;
    out["reward"] = info.reward ? ordered_json(*info.reward) : ordered_json(nullptr);
    out["ranks"] = c.saving_ranks();
    out["bytes"] = c.bytes();
    out["parameters"] = c.table().parameter_count();
    out["hash"] = hash;
    out["modules"] = ordered_json::array();
    for (const storage::StoredModule& module : c.modules())
      out["modules"].push_back({{"name", module.name},
                                {"trainable", module.trainable},
                                {"tensors", module.tensors.size()}});
    out["state"] = ordered_json::parse(state_text(info));
    out["run_config"] = info.run_config_yaml;
    out["model_config"] = ordered_json::parse(info.model_config_json);
    out["tensors"] = ordered_json::array();
    for (const storage::TensorStats& t : stats) {
      out["tensors"].push_back({{"name", t.name},
                                {"shape", t.shape},
                                {"dtype", "f32"},
                                {"norm", number_json(t.norm)},
                                {"min", number_json(t.min)},
                                {"max", number_json(t.max)},
                                {"nan", t.nan_count},
                                {"sha256", t.sha256}});
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print(
      "checkpoint  {}\nstep        {} ({})\nsaved       {} by {} rank{}, {}\nreward      {}\n",
      c.folder().string(), info.step, stage_text(info), time_text(info.unix_time), c.saving_ranks(),
      c.saving_ranks() == 1 ? "" : "s", size_text(c.bytes()), reward_text(info.reward));
  fmt::print("model       {}, {} parameters\nmodules     {}\nhash        {}\nstate       {}\n",
             c.config().model_type, c.table().parameter_count(), modules_text(c.modules()), hash,
             state_text(info));
  fmt::print("run config\n");
  print_indented(info.run_config_yaml);
  fmt::print("model config\n");
  print_indented(info.model_config_json);
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "shape", "dtype", "norm", "min", "max", "NaN", "hash"}};
  for (const storage::TensorStats& t : stats) {
    rows.push_back({t.name, shape_text(t.shape), "f32", fmt::format("{:.6g}", t.norm),
                    fmt::format("{:.4g}", t.min), fmt::format("{:.4g}", t.max),
                    fmt::to_string(t.nan_count), t.sha256.substr(0, 12)});
  }
  print_table(rows, {true, true, true, false, false, false, false, true});
}

void ckpt_verify(const CkptOptions& options) {
  const fs::path folder = newest_checkpoint(options.path);
  try {
    const storage::Checkpoint c(folder);
    const size_t files = c.manifest().rank_files.size() + c.manifest().tokenizer.size() + 1;
    if (options.json) {
      fmt::print(
          "{}\n",
          ordered_json(
              {{"path", folder.string()}, {"good", true}, {"files", files}, {"bytes", c.bytes()}})
              .dump());
    } else {
      fmt::print("{}: good: {} files, {}, every SHA-256 and slice as its manifest says\n",
                 folder.string(), files, size_text(c.bytes()));
    }
  } catch (const Error& error) {
    if (options.json) {
      fmt::print(
          "{}\n",
          ordered_json({{"path", folder.string()}, {"good", false}, {"problem", error.what()}})
              .dump());
    }
    throw;
  }
}

void ckpt_hash(const CkptOptions& options) {
  const storage::Checkpoint c = open_good(options.path);
  const std::string digest = storage::checkpoint_hash(c, options.module);
  if (options.json) {
    ordered_json out = {{"path", c.folder().string()}, {"step", c.info().step}, {"hash", digest}};
    if (options.module != models::kPolicy.name) out["module"] = options.module;
    fmt::print("{}\n", out.dump());
  } else {
    fmt::print("{}\n", digest);
  }
}

}  // namespace orrery::tools
