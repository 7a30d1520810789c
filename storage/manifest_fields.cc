#include "storage/manifest_fields.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/ascii.h"
#include "core/error.h"
#include "core/file.h"
#include "core/sha256.h"
#include "storage/hf_folder.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr int64_t kMaxBytes = int64_t{1} << 60;
constexpr size_t kSha256Digits = 64;
constexpr std::array<const char*, 2> kTrainingStages = {"sft", "grpo"};

/// Reads `state`, which is there exactly when a training run has saved.
std::optional<TrainState> read_state(const JsonObject& object, const std::string& stage,
                                     int64_t step) {
  const json* value = object.find("state");
  if (stage == kImportStage) {
    // An import writes an empty object.
    if (value != nullptr && !(value->is_object() && value->empty()))
      object.reject("state", "an imported model has none ({})");
    if (step != 0) object.reject("step", "an imported model is of step 0");
    return std::nullopt;
  }
  if (!is_training_stage(stage)) {
    object.reject("stage", fmt::format("\"{}\" or \"{}\" is needed",
                                       fmt::join(kTrainingStages, "\", \""), kImportStage));
  }
  if (value == nullptr) {
    object.reject("state",
                  fmt::format("what a training run writes is needed where stage is \"{}\"", stage));
  }
  const TrainState state = state_from_json(*value, object.where() + ": state");
  if (state.step() != step) {
    fail("{}: state is of step {} ({} of SFT, {} of RL), but step is {}", object.where(),
         state.step(), state.sft_step, state.rl_step, step);
  }
  return state;
}

/// A text of `object` that fits into one line.
std::string plain_text(const JsonObject& object, const std::string& key) {
  const std::string text = object.text(key);
  const bool plain = !text.empty() && std::none_of(text.begin(), text.end(), [](char c) {
    return is_control(c) || c == 127;
  });
  if (!plain) object.reject(key, "a text without control characters is needed");
  return text;
}

std::optional<std::vector<InputDigest>> read_inputs(const JsonObject& object) {
  const json* list = object.find("inputs");
  if (list == nullptr) return std::nullopt;
  if (!list->is_array()) object.reject("inputs", "a list is needed");
  std::vector<InputDigest> inputs;
  for (const json& value : *list) {
    const JsonObject input(value, object.where() + ": inputs");
    inputs.push_back(
        {plain_text(input, "key"), plain_text(input, "name"), plain_text(input, "digest")});
  }
  return inputs;
}

}  // namespace

std::string manifest_hash_line(const std::string& manifest) {
  return fmt::format("{}  {}\n", sha256_hex(std::as_bytes(std::span(manifest))), kManifestFile);
}

bool is_training_stage(const std::string& stage) {
  return std::find(kTrainingStages.begin(), kTrainingStages.end(), stage) != kTrainingStages.end();
}

const json& list_field(const JsonObject& object, const std::string& key) {
  const json* value = object.find(key);
  if (value == nullptr || !value->is_array()) object.reject(key, "a list is needed");
  return *value;
}

ManifestText read_manifest_text(const fs::path& folder) {
  const fs::path path = folder / kManifestFile;
  if (!fs::exists(path))
    fail("{} is missing: {} is not a checkpoint", path.string(), folder.string());
  ManifestText manifest{path.string(), read_file(path), {}};
  if (read_file(folder / kManifestHashFile) != manifest_hash_line(manifest.text)) {
    fail("{}: damaged: its SHA-256 is not the one in {}", path.string(), kManifestHashFile);
  }
  manifest.json = parse_json_strictly(manifest.text, path.string(), 64);
  const JsonObject object(manifest.json, path.string());
  if (object.text("format") != kManifestFormat)
    object.reject("format", fmt::format("\"{}\" is needed", kManifestFormat));
  manifest.version = object.integer("format_version", 1, INT64_MAX);
  return manifest;
}

CheckpointInfo read_info(const JsonObject& object, const std::string& manifest_text) {
  CheckpointInfo info;
  info.step = object.integer("step", 0, INT64_MAX);
  info.stage = object.text("stage");
  info.unix_time = object.integer("unix_time", 0, INT64_C(253402300799));  // the year 9999
  if (object.find("reward") != nullptr) info.reward = object.number("reward", -1e300, 1e300);
  info.run_config_yaml = object.text("run_config");
  info.inputs = read_inputs(object);
  if (object.find("numerics") != nullptr) info.numerics = plain_text(object, "numerics");
  if (object.find("device") != nullptr) info.device = plain_text(object, "device");
  info.state = read_state(object, info.stage, info.step);
  const auto ordered = ordered_json::parse(manifest_text);
  info.model_config_json =
      ordered.contains("model_config") ? ordered["model_config"].dump(2) + "\n" : "";
  return info;
}

CheckpointFileEntry read_file_entry(const JsonObject& object, const std::string& expected) {
  CheckpointFileEntry entry;
  entry.name = object.text("name");
  if (entry.name != expected) object.reject("name", fmt::format("\"{}\" was expected", expected));
  entry.bytes = object.integer("bytes", 0, kMaxBytes);
  entry.sha256 = object.text("sha256");
  if (entry.sha256.size() != kSha256Digits)
    object.reject("sha256", "64 hexadecimal digits are needed");
  return entry;
}

std::vector<CheckpointFileEntry> read_tokenizer_entries(const JsonObject& object) {
  std::vector<CheckpointFileEntry> entries;
  const auto companions = companion_files();
  size_t next = 0;  // the names come in the order of companion_files(), each at most once
  for (const json& value : list_field(object, "tokenizer_files")) {
    const JsonObject entry(value, object.where() + ": tokenizer_files");
    const std::string name = entry.text("name");
    while (next < companions.size() &&
           name != fmt::format("{}/{}", kTokenizerFolder, companions[next]))
      ++next;
    if (next == companions.size())
      fail("{}: {} is no tokenizer file", entry.where(), json_excerpt(json(name)));
    entries.push_back(read_file_entry(entry, name));
    ++next;
  }
  return entries;
}

void check_file_size(const fs::path& folder, const CheckpointFileEntry& entry) {
  std::error_code error;
  const int64_t bytes = fs::file_size(folder / entry.name, error);
  if (error) fail("{}: {}", (folder / entry.name).string(), error.message());
  if (bytes != entry.bytes) {
    fail("{}: {} bytes, its manifest says {}", (folder / entry.name).string(), bytes, entry.bytes);
  }
}

}  // namespace orrery::storage
