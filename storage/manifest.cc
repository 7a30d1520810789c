#include "storage/manifest.h"

#include <fmt/chrono.h>

#include <chrono>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "storage/manifest_fields.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

std::string iso_time(int64_t unix_time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(unix_time));
}

ordered_json file_json(const CheckpointFileEntry& entry) {
  return {{"name", entry.name}, {"bytes", entry.bytes}, {"sha256", entry.sha256}};
}

ordered_json rank_file_json(const CheckpointFileEntry& entry) {
  ordered_json out = file_json(entry);
  out["slices"] = slices_json(entry.slices);
  return out;
}

/// Throws an Error unless the policy is there, trainable, with the tensors that this
/// program makes of model_config.
void check_policy(const std::string& where, std::span<const StoredModule> modules,
                  const models::ModelConfig& config) {
  const StoredModule& policy = find_module(modules, models::kPolicy.name, where);
  if (policy != stored_module(models::ParameterTable(config))) {
    fail(
        "{}: the tensors of its policy are not those of its model_config; "
        "it was written by another version",
        where);
  }
}

/// The command that converts the checkpoint: with the others of its run, if it is a
/// run's.
std::string convert_command(const fs::path& folder) {
  const auto quoted = [](const std::string& text) {
    constexpr std::string_view kPlain =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
    if (text.find_first_not_of(kPlain) == std::string::npos) return text;
    std::string out = "'";
    for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return out + "'";
  };
  const auto normal = [](const fs::path& path) {
    return (path / "").lexically_normal().parent_path();
  };
  const auto named = [](const fs::path& path) {
    return path.has_filename() && path.filename() != "." && path.filename() != "..";
  };
  const auto is_of_run = [](const fs::path& path) {
    return path.parent_path().filename() == "checkpoints";
  };
  fs::path clean = normal(folder);
  // A relative path may end before the names that the command needs.
  const bool complete = named(clean) && named(clean.parent_path()) &&
                        (!is_of_run(clean) || named(clean.parent_path().parent_path()));
  if (!complete) clean = normal(fs::absolute(folder));
  const fs::path parent = clean.parent_path(), run = parent.parent_path();
  const bool of_run = is_of_run(clean) && named(run);
  const fs::path from = of_run ? run : clean;
  const fs::path to = of_run ? fs::path(run.string() + "_v3") : parent / "v3" / clean.filename();
  return fmt::format("orrery ckpt convert {} {}", quoted(from.string()), quoted(to.string()));
}

void check_version(const fs::path& folder, int64_t version) {
  if (version == kFormatVersion) return;
  const std::string problem =
      fmt::format("{} is of format version {}; this program reads version {}", folder.string(),
                  version, kFormatVersion);
  if (version == kConvertedVersion)
    throw OldFormat(fmt::format("{}: convert it with {}", problem, convert_command(folder)));
  fail("{}, and converts version {}", problem, kConvertedVersion);
}

}  // namespace

std::string entry_text(const CheckpointFileEntry& entry) { return rank_file_json(entry).dump(); }

CheckpointFileEntry entry_from_text(const std::string& text) {
  const json parsed = json::parse(text);
  const JsonObject object(parsed, "a rank's file");
  CheckpointFileEntry entry = read_file_entry(object, object.text("name"));
  entry.slices = read_slices(object);
  return entry;
}

void write_manifest(const fs::path& folder, const Manifest& manifest) {
  const CheckpointInfo& info = manifest.info;
  const std::string where = (folder / kManifestFile).string();
  check_cover(where, manifest.modules, manifest.rank_files);
  const bool consistent = info.state
                              ? is_training_stage(info.stage) && info.state->step() == info.step
                              : info.stage == kImportStage && info.step == 0;
  ORRERY_CHECK(consistent, "stage '{}', step {}, {}", info.stage, info.step,
               info.state ? state_to_json(*info.state) : "no state");
  check_policy(where, manifest.modules,
               models::parse_model_config(info.model_config_json, where + ": model_config"));
  const int64_t time = info.unix_time != 0
                           ? info.unix_time
                           : std::chrono::duration_cast<std::chrono::seconds>(
                                 std::chrono::system_clock::now().time_since_epoch())
                                 .count();

  ordered_json out;
  out["format"] = kManifestFormat;
  out["format_version"] = kFormatVersion;
  out["step"] = info.step;
  out["stage"] = info.stage;
  out["created"] = iso_time(time);
  out["unix_time"] = time;
  out["reward"] = info.reward && std::isfinite(*info.reward) ? ordered_json(*info.reward)
                                                             : ordered_json(nullptr);
  out["files"] = ordered_json::array();
  for (const CheckpointFileEntry& entry : manifest.rank_files)
    out["files"].push_back(rank_file_json(entry));
  out["tokenizer_files"] = ordered_json::array();
  for (const CheckpointFileEntry& entry : manifest.tokenizer)
    out["tokenizer_files"].push_back(file_json(entry));
  out["state"] = info.state ? json::parse(state_to_json(*info.state)) : json::object();
  out["run_config"] = info.run_config_yaml;
  if (info.inputs) {
    out["inputs"] = ordered_json::array();
    for (const InputDigest& input : *info.inputs)
      out["inputs"].push_back({{"key", input.key}, {"name", input.name}, {"digest", input.digest}});
  }
  if (info.numerics) out["numerics"] = *info.numerics;
  if (info.device) out["device"] = *info.device;
  out["model_config"] = ordered_json::parse(info.model_config_json);
  out["modules"] = modules_json(manifest.modules);
  std::string text;
  try {
    text = out.dump(1) + "\n";
  } catch (const json::exception&) {
    fail("{}: the run's configuration or a path in it is not valid UTF-8", where);
  }
  write_file_atomic(folder / kManifestFile, text);
  write_file_atomic(folder / kManifestHashFile, manifest_hash_line(text));
}

Manifest read_manifest(const fs::path& folder) {
  const ManifestText source = read_manifest_text(folder);
  check_version(folder, source.version);
  const JsonObject object(source.json, source.path);
  Manifest manifest;
  manifest.info = read_info(object, source.text);
  manifest.config =
      models::parse_model_config(manifest.info.model_config_json, source.path + ": model_config");
  manifest.modules = read_modules(object);
  check_policy(source.path, manifest.modules, manifest.config);
  for_each_rank_file(object, [&](const JsonObject& file, const std::string& name) {
    manifest.rank_files.push_back(read_file_entry(file, name));
    manifest.rank_files.back().slices = read_slices(file);
  });
  check_cover(source.path, manifest.modules, manifest.rank_files);
  manifest.tokenizer = read_tokenizer_entries(object);
  for (const auto* list : {&manifest.rank_files, &manifest.tokenizer}) {
    for (const CheckpointFileEntry& entry : *list) check_file_size(folder, entry);
  }
  return manifest;
}

}  // namespace orrery::storage
