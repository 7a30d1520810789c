#include "tools/ckpt_command.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/error.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_report.h"
#include "storage/hf_folder.h"
#include "tools/commands.h"

namespace orrery::tools {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct Options {
  std::string path, other;
  std::string format = "hf", dtype = "f32";
  bool json = false;
};

// ---- text ----------------------------------------------------------------------

std::string size_text(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB"};
  double value = bytes;
  size_t unit = 0;
  for (; value >= 1000 && unit + 1 < std::size(kUnits); ++unit) value /= 1000;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string time_text(int64_t unix_time) {
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(unix_time));
}

std::string reward_text(const std::optional<double>& reward) {
  return reward ? fmt::format("{:.4f}", *reward) : "-";
}

/// "grpo 200", "sft 600", "import"
std::string stage_text(const storage::CheckpointInfo& info) {
  return info.state ? fmt::format("{} {}", info.stage, info.state->stage_step()) : info.stage;
}

int64_t stage_step(const storage::CheckpointInfo& info) {
  return info.state ? info.state->stage_step() : 0;
}

std::string state_text(const storage::CheckpointInfo& info) {
  return info.state ? storage::state_to_json(*info.state) : "{}";
}

std::string shape_text(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

/// A number for JSON, which has no infinity.
ordered_json number_json(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

/// Rows under a heading, columns as wide as their widest cell; the columns named in
/// `left` are flush left.
void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& left) {
  std::vector<size_t> widths(left.size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      line += c == 0 ? "" : "  ";
      line += left[c] ? fmt::format("{:<{}}", row[c], widths[c])
                      : fmt::format("{:>{}}", row[c], widths[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    fmt::print("{}\n", line);
  }
}

void print_indented(const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    fmt::print("  {}\n", text.substr(at, end - at));
    at = end + 1;
  }
}

// ---- which checkpoint ----------------------------------------------------------

/// The folder of step_* folders that a run folder (or that folder itself) means.
fs::path checkpoints_of(const fs::path& path) {
  if (!fs::is_directory(path)) fail_usage("'{}' is not a folder", path.string());
  return fs::is_directory(path / "checkpoints") ? path / "checkpoints" : path;
}

bool is_checkpoint(const fs::path& path) {
  return fs::exists(path / storage::kManifestFile) || path.filename().string().starts_with("step_");
}

/// A checkpoint folder as it is, or the newest one of a run folder, good or not.
fs::path newest_checkpoint(const fs::path& path) {
  if (is_checkpoint(path)) return path;
  const auto all = storage::list_checkpoints(checkpoints_of(path));
  if (all.empty()) fail("{} is no checkpoint and holds none", path.string());
  return all.back().folder;
}

/// Opens a checkpoint folder, or the newest good one of a run folder, saying which ones
/// it passed over.
storage::Checkpoint open_good(const fs::path& path) {
  if (is_checkpoint(path)) return storage::Checkpoint(path);
  auto good = storage::latest_good_checkpoint(
      checkpoints_of(path), [](const fs::path& folder, const std::string& reason) {
        spdlog::warn("{} is passed over: {}", folder.string(), reason);
      });
  if (!good) fail("{} is no checkpoint and holds no good one", path.string());
  return std::move(*good);
}

// ---- commands ------------------------------------------------------------------

void list(const Options& options) {
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

void show(const Options& options) {
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
  fmt::print("model       {}, {} parameters\nhash        {}\nstate       {}\n",
             c.config().model_type, c.table().parameter_count(), hash, state_text(info));
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

void verify(const Options& options) {
  const fs::path folder = newest_checkpoint(options.path);
  try {
    const storage::Checkpoint c(folder);
    const size_t files = c.manifest().slices.size() + c.manifest().tokenizer.size() + 1;
    if (options.json) {
      fmt::print(
          "{}\n",
          ordered_json(
              {{"path", folder.string()}, {"good", true}, {"files", files}, {"bytes", c.bytes()}})
              .dump());
    } else {
      fmt::print("{}: good: {} files, {}, every SHA-256 and extent as its manifest says\n",
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

void hash(const Options& options) {
  const storage::Checkpoint c = open_good(options.path);
  const std::string digest = storage::checkpoint_hash(c);
  if (options.json) {
    fmt::print(
        "{}\n",
        ordered_json({{"path", c.folder().string()}, {"step", c.info().step}, {"hash", digest}})
            .dump());
  } else {
    fmt::print("{}\n", digest);
  }
}

ordered_json array_diff_json(const storage::ArrayDiff& d) {
  return {{"equal", d.differing == 0},
          {"differing", d.differing},
          {"max_abs", number_json(d.max_abs)},
          {"max_rel", number_json(d.max_rel)}};
}

/// One line that answers the question.
std::string diff_verdict(const storage::CheckpointDiff& d, int64_t step_a, int64_t step_b) {
  if (d.equal_tensors()) {
    return step_a == step_b ? "identical"
                            : fmt::format("identical tensors, steps {} and {}", step_a, step_b);
  }
  const auto count = [&](auto&& field) {
    return std::count_if(d.tensors.begin(), d.tensors.end(),
                         [&](const storage::TensorDiff& t) { return (t.*field).differing != 0; });
  };
  std::string text =
      fmt::format("of {} tensors in both, {} differ in weights, {} in adam_m, {} in adam_v",
                  d.tensors.size(), count(&storage::TensorDiff::weights),
                  count(&storage::TensorDiff::adam_m), count(&storage::TensorDiff::adam_v));
  const auto add = [&](const std::vector<std::string>& names, const char* what) {
    if (!names.empty())
      text += fmt::format("; {} {} ({}{})", names.size(), what, names[0],
                          names.size() > 1 ? ", ..." : "");
  };
  add(d.only_a, "only in the first");
  add(d.only_b, "only in the second");
  add(d.reshaped, "of other shape");
  return text;
}

void diff(const Options& options) {
  const storage::Checkpoint a = open_good(options.path), b = open_good(options.other);
  const storage::CheckpointDiff d = storage::diff_checkpoints(a, b);
  if (options.json) {
    ordered_json out = {{"a", a.folder().string()},
                        {"b", b.folder().string()},
                        {"steps", {a.info().step, b.info().step}},
                        {"identical", d.equal_tensors() && a.info().step == b.info().step},
                        {"only_a", d.only_a},
                        {"only_b", d.only_b},
                        {"reshaped", d.reshaped}};
    out["tensors"] = ordered_json::array();
    for (const storage::TensorDiff& t : d.tensors) {
      out["tensors"].push_back({{"name", t.name},
                                {"weights", array_diff_json(t.weights)},
                                {"adam_m", array_diff_json(t.adam_m)},
                                {"adam_v", array_diff_json(t.adam_v)}});
    }
    fmt::print("{}\n", out.dump(2));
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"tensor", "weights", "max abs", "max rel", "adam_m", "adam_v"}};
  const auto cell = [](const storage::ArrayDiff& x, int64_t size) {
    return x.differing == 0 ? std::string("equal")
                            : fmt::format("{} of {} differ", x.differing, size);
  };
  for (const storage::TensorDiff& t : d.tensors) {
    int64_t size = 1;
    for (const int64_t n : t.shape) size *= n;
    rows.push_back({t.name, cell(t.weights, size), fmt::format("{:.3g}", t.weights.max_abs),
                    fmt::format("{:.3g}", t.weights.max_rel), cell(t.adam_m, size),
                    cell(t.adam_v, size)});
  }
  print_table(rows, {true, true, false, false, true, true});
  fmt::print("{}\n", diff_verdict(d, a.info().step, b.info().step));
}

DType dtype_of(const std::string& name) {
  return name == "f32" ? DType::kF32 : name == "bf16" ? DType::kBF16 : DType::kF16;
}

void export_checkpoint(const Options& options) {
  const storage::Checkpoint c = open_good(options.path);
  std::vector<float> weights(c.flat_size());
  c.read(0, c.flat_size(), weights, {}, {});
  storage::save_hf_folder(options.other, c.config(), c.table(), weights, dtype_of(options.dtype),
                          c.tokenizer_folder());
  const bool tokenizer = !c.tokenizer_folder().empty();
  if (options.json) {
    fmt::print("{}\n", ordered_json({{"path", options.other},
                                     {"from", c.folder().string()},
                                     {"step", c.info().step},
                                     {"dtype", options.dtype},
                                     {"tokenizer", tokenizer}})
                           .dump());
  } else {
    fmt::print("{}: Hugging Face folder of {}, step {}, {}{}\n", options.other, c.folder().string(),
               c.info().step, options.dtype,
               tokenizer ? "" : "; the checkpoint holds no tokenizer, so neither does the folder");
  }
}

void import_folder(const Options& options) {
  const fs::path source = options.path, given = options.other;
  const fs::path target = (given.has_filename() ? given : given.parent_path()).lexically_normal();
  if (fs::exists(target)) fail_usage("{} exists; name a new checkpoint folder", target.string());
  const std::string name = target.filename().string();
  if (name.starts_with("step_") && name != storage::checkpoint_name(0)) {
    fail_usage("{}: an imported checkpoint is of step 0; name it {}", target.string(),
               storage::checkpoint_name(0));
  }
  const models::ModelConfig config = models::load_model_config(source);
  const models::ParameterTable table(config);
  const size_t size = table.flat_size();
  std::vector<float> weights(size);
  storage::load_hf_weights({}, source, config, table, weights);
  const std::vector<float> zeros(size);

  storage::CheckpointInfo info;
  info.stage = storage::kImportStage;
  info.model_config_json = models::model_config_json(config, "float32");
  fs::path temporary = target;
  temporary += ".tmp-import";
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error) fail("cannot create {}: {}", temporary.string(), error.message());
  try {
    const Extent all{0, table.flat_size()};
    const auto entry = storage::write_checkpoint_slice(temporary, 0, 1, table.flat_size(),
                                                       {std::span(&all, 1), weights, zeros, zeros});
    storage::publish_checkpoint(temporary, target, info, table, {entry}, source);
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
  if (options.json) {
    fmt::print("{}\n", ordered_json({{"path", target.string()},
                                     {"from", source.string()},
                                     {"parameters", table.parameter_count()}})
                           .dump());
  } else {
    fmt::print("{}: step 0 of {}, {} parameters, zero moments\n", target.string(), source.string(),
               table.parameter_count());
  }
}

// ---- command line --------------------------------------------------------------

using Action = void (*)(const Options&);

/// A subcommand with its own options; `set_up` adds the positional ones.
template <class SetUp>
void add(CLI::App& parent, Command& run, const std::string& name, const std::string& description,
         const std::string& example, Action action, SetUp&& set_up) {
  CLI::App* sub = parent.add_subcommand(name, description);
  auto options = std::make_shared<Options>();
  set_up(*sub, *options);
  sub->add_flag("--json", options->json, "print JSON");
  sub->footer("Example:\n  orrery ckpt " + example);
  sub->callback([&run, options, action] {
    run = [options, action] {
      action(*options);
      return kExitOk;
    };
  });
}

constexpr const char* kCheckpointHelp =
    "a checkpoint folder, or a run folder: its newest good checkpoint";

}  // namespace

void add_ckpt_command(CLI::App& app, Command& run) {
  CLI::App* ckpt =
      app.add_subcommand("ckpt", "List, inspect, compare, check and convert checkpoints");
  ckpt->require_subcommand(1);
  ckpt->footer(
      "Example:\n"
      "  orrery ckpt ls runs/quickstart\n"
      "\n"
      "Exit codes: 0 ok, 1 failure (a bad checkpoint too), 2 bad usage.");
  const auto one = [](CLI::App& sub, Options& o) {
    sub.add_option("CHECKPOINT", o.path, kCheckpointHelp)->required();
  };

  add(*ckpt, run, "ls", "List a run's checkpoints: step, size, time, reward", "ls runs/quickstart",
      list, [](CLI::App& sub, Options& o) {
        sub.add_option("RUN_DIR", o.path, "a run folder")->required();
      });
  add(*ckpt, run, "show", "Show a checkpoint's configuration, state and tensors",
      "show runs/quickstart/checkpoints/step_000100", show, one);
  add(*ckpt, run, "verify",
      "Check the manifest, and the size, SHA-256 and extents of every file (of a run folder: "
      "its newest checkpoint)",
      "verify runs/quickstart", verify, one);
  add(*ckpt, run, "diff",
      "Compare two checkpoints tensor by tensor (exit code 0 whether or not they differ)",
      "diff run_a/checkpoints/step_000100 run_b/checkpoints/step_000100", diff,
      [](CLI::App& sub, Options& o) {
        sub.add_option("A", o.path, kCheckpointHelp)->required();
        sub.add_option("B", o.other, kCheckpointHelp)->required();
      });
  add(*ckpt, run, "hash",
      "One SHA-256 over step, weights and moments, whatever the number of ranks that saved",
      "hash runs/quickstart", hash, one);
  add(*ckpt, run, "export", "Write a checkpoint's model as a Hugging Face folder",
      "export --format hf --dtype bf16 runs/quickstart exported", export_checkpoint,
      [&](CLI::App& sub, Options& o) {
        one(sub, o);
        sub.add_option("OUT", o.other, "the folder to create")->required();
        sub.add_option("--format", o.format, "hf")->check(one_of({"hf"}))->capture_default_str();
        sub.add_option("--dtype", o.dtype, "f32, bf16 or f16")
            ->check(one_of({"f32", "bf16", "f16"}))
            ->capture_default_str();
      });
  add(*ckpt, run, "import", "Make a step-0 checkpoint, moments zero, of a Hugging Face folder",
      "import models/my-model runs/new/checkpoints/step_000000", import_folder,
      [](CLI::App& sub, Options& o) {
        sub.add_option("HF_DIR", o.path, "a Hugging Face model folder")->required();
        sub.add_option("OUT", o.other, "the checkpoint folder to create")->required();
      });
}

}  // namespace orrery::tools
