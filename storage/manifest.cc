#include "storage/manifest.h"

#include <fmt/chrono.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <iterator>
#include <utility>

#include "core/ascii.h"
#include "core/error.h"
#include "core/fault.h"
#include "core/file.h"
#include "core/json_read.h"
#include "core/sha256.h"
#include "storage/hf_folder.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kFormat = "orrery-checkpoint";
constexpr int64_t kFormatVersion = 2;
constexpr int64_t kMaxRanks = 1 << 20;
constexpr int64_t kMaxBytes = int64_t{1} << 60;
constexpr size_t kSha256Digits = 64;
constexpr std::array<const char*, 2> kTrainingStages = {"sft", "grpo"};

std::string manifest_hash_line(const std::string& manifest) {
  return fmt::format("{}  {}\n", sha256_hex(std::as_bytes(std::span(manifest))), kManifestFile);
}

std::string iso_time(int64_t unix_time) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(unix_time));
}

/// Throws an Error unless every element is in exactly one extent of one slice.
void check_cover(const std::string& where, const std::vector<CheckpointFileEntry>& slices,
                 int64_t flat_size) {
  std::vector<std::pair<Extent, const CheckpointFileEntry*>> all;
  for (const CheckpointFileEntry& slice : slices) {
    int64_t end = 0;
    for (const Extent& e : slice.extents) {
      if (e.begin < end || e.end <= e.begin)
        fail("{}: the extents of {} do not rise at [{}, {})", where, slice.name, e.begin, e.end);
      end = e.end;
      all.emplace_back(e, &slice);
    }
  }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.first.begin < b.first.begin; });
  int64_t cursor = 0;
  for (const auto& [extent, slice] : all) {
    if (extent.begin != cursor) {
      fail("{}: {} holds [{}, {}) where an extent from {} was expected", where, slice->name,
           extent.begin, extent.end, cursor);
    }
    cursor = extent.end;
  }
  if (cursor != flat_size) fail("{}: its extents end at {} of {}", where, cursor, flat_size);
}

ordered_json tensors_json(const models::ParameterTable& table) {
  ordered_json tensors = ordered_json::array();
  for (const models::Parameter& p : table.parameters()) {
    tensors.push_back({{"name", p.name}, {"shape", p.shape}, {"offset", p.offset}});
  }
  return tensors;
}

ordered_json file_json(const CheckpointFileEntry& entry, bool slice) {
  ordered_json out = {{"name", entry.name}, {"bytes", entry.bytes}, {"sha256", entry.sha256}};
  if (slice) {
    out["extents"] = ordered_json::array();
    for (const Extent& e : entry.extents) out["extents"].push_back({e.begin, e.end});
  }
  return out;
}

CheckpointFileEntry read_entry(const json& value, const std::string& where,
                               const std::string& expected_name) {
  const JsonObject object(value, where);
  CheckpointFileEntry entry;
  entry.name = object.text("name");
  // Only names this program gives: a manifest must not lead outside its folder.
  if (entry.name != expected_name)
    object.reject("name", fmt::format("\"{}\" was expected", expected_name));
  entry.bytes = object.integer("bytes", 0, kMaxBytes);
  entry.sha256 = object.text("sha256");
  if (entry.sha256.size() != kSha256Digits)
    object.reject("sha256", "64 hexadecimal digits are needed");
  const json* extents = object.find("extents");
  if (extents == nullptr) return entry;
  if (!extents->is_array()) object.reject("extents", "a list of [begin, end] is needed");
  for (const json& pair : *extents) {
    const bool two = pair.is_array() && pair.size() == 2;
    const auto begin = two ? json_integer(pair[0]) : std::nullopt;
    const auto end = two ? json_integer(pair[1]) : std::nullopt;
    if (!begin || !end || *begin < 0 || *end > kMaxBytes) {
      fail("{}: extents of {} hold {}; a list of [begin, end], from 0 to {}, is needed", where,
           entry.name, json_excerpt_nested(pair), kMaxBytes);
    }
    entry.extents.push_back({*begin, *end});
  }
  return entry;
}

bool is_training(const std::string& stage) {
  return std::find(kTrainingStages.begin(), kTrainingStages.end(), stage) != kTrainingStages.end();
}

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
  if (!is_training(stage)) {
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

const json& list_field(const JsonObject& object, const std::string& key) {
  const json* value = object.find(key);
  if (value == nullptr || !value->is_array()) object.reject(key, "a list is needed");
  return *value;
}

void check_table(const JsonObject& object, const models::ParameterTable& table, int64_t flat_size) {
  const bool same =
      flat_size == table.flat_size() && list_field(object, "tensors") == json(tensors_json(table));
  if (!same) {
    fail(
        "{}: its table of tensors is not the one of its model_config; "
        "it was written by another version",
        object.where());
  }
}

}  // namespace

std::string checkpoint_slice_name(int64_t rank, int64_t ranks) {
  return fmt::format("rank_{:04}_of_{:04}.h5", rank, ranks);
}

CheckpointFileEntry describe_file(const fs::path& folder, const std::string& name,
                                  const PieceRunner& run_piece) {
  constexpr size_t kPiece = size_t{1} << 19;
  const MappedFile file(folder / name);
  Sha256 sha;
  for (auto rest = file.bytes(); !rest.empty();) {
    const auto piece = rest.first(std::min(kPiece, rest.size()));
    run_piece([&] { sha.update(piece); });
    rest = rest.subspan(piece.size());
  }
  return {name, std::ssize(file.bytes()), sha.hex()};
}

/// Describes a file as a failing disk would give it.
CheckpointFileEntry describe_damaged(const fs::path& folder, const std::string& name,
                                     FaultAction fault) {
  const MappedFile file(folder / name);
  std::vector<std::byte> bytes(file.bytes().begin(), file.bytes().end());
  if (fault == FaultAction::kShortRead) bytes.resize(bytes.size() / 2);
  if (fault == FaultAction::kCorrupt && !bytes.empty()) bytes[bytes.size() / 2] ^= std::byte{1};
  return {name, std::ssize(bytes), sha256_hex(bytes)};
}

void verify_file(const fs::path& folder, const CheckpointFileEntry& entry,
                 const PieceRunner& run_piece) {
  const FaultAction fault = fault_point(FaultPoint::kCheckpointRead);
  const CheckpointFileEntry found = fault == FaultAction::kNone
                                        ? describe_file(folder, entry.name, run_piece)
                                        : describe_damaged(folder, entry.name, fault);
  if (found.bytes != entry.bytes) {
    fail("{}: {} bytes, its manifest says {}", (folder / entry.name).string(), found.bytes,
         entry.bytes);
  }
  if (found.sha256 != entry.sha256) {
    fail("{}: damaged: its SHA-256 is {}..., its manifest says {}...",
         (folder / entry.name).string(), found.sha256.substr(0, 12), entry.sha256.substr(0, 12));
  }
}

void write_manifest(const fs::path& folder, const Manifest& manifest,
                    const models::ParameterTable& table) {
  const CheckpointInfo& info = manifest.info;
  const std::string where = (folder / kManifestFile).string();
  check_cover(where, manifest.slices, table.flat_size());
  const bool consistent = info.state ? is_training(info.stage) && info.state->step() == info.step
                                     : info.stage == kImportStage && info.step == 0;
  ORRERY_CHECK(consistent, "stage '{}', step {}, {}", info.stage, info.step,
               info.state ? state_to_json(*info.state) : "no state");
  models::parse_model_config(info.model_config_json, where + ": model_config");
  const int64_t time = info.unix_time != 0
                           ? info.unix_time
                           : std::chrono::duration_cast<std::chrono::seconds>(
                                 std::chrono::system_clock::now().time_since_epoch())
                                 .count();

  ordered_json out;
  out["format"] = kFormat;
  out["format_version"] = kFormatVersion;
  out["step"] = info.step;
  out["stage"] = info.stage;
  out["created"] = iso_time(time);
  out["unix_time"] = time;
  out["reward"] = info.reward && std::isfinite(*info.reward) ? ordered_json(*info.reward)
                                                             : ordered_json(nullptr);
  out["flat_size"] = table.flat_size();
  out["files"] = ordered_json::array();
  for (const CheckpointFileEntry& entry : manifest.slices)
    out["files"].push_back(file_json(entry, true));
  out["tokenizer_files"] = ordered_json::array();
  for (const CheckpointFileEntry& entry : manifest.tokenizer)
    out["tokenizer_files"].push_back(file_json(entry, false));
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
  out["tensors"] = tensors_json(table);
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
  const fs::path path = folder / kManifestFile;
  if (!fs::exists(path))
    fail("{} is missing: {} is not a checkpoint", path.string(), folder.string());
  const std::string text = read_file(path);
  if (read_file(folder / kManifestHashFile) != manifest_hash_line(text)) {
    fail("{}: damaged: its SHA-256 is not the one in {}", path.string(), kManifestHashFile);
  }
  const json parsed = parse_json_strictly(text, path.string(), 64);
  const JsonObject object(parsed, path.string());
  if (object.text("format") != kFormat)
    object.reject("format", fmt::format("\"{}\" is needed", kFormat));
  const int64_t version = object.integer("format_version", 1, INT64_MAX);
  if (version != kFormatVersion) {
    fail("{} is of format version {}; this program reads version {}", folder.string(), version,
         kFormatVersion);
  }

  Manifest manifest;
  CheckpointInfo& info = manifest.info;
  info.step = object.integer("step", 0, INT64_MAX);
  info.stage = object.text("stage");
  info.unix_time = object.integer("unix_time", 0, INT64_C(253402300799));  // the year 9999
  if (object.find("reward") != nullptr) info.reward = object.number("reward", -1e300, 1e300);
  info.run_config_yaml = object.text("run_config");
  info.inputs = read_inputs(object);
  if (object.find("numerics") != nullptr) info.numerics = plain_text(object, "numerics");
  if (object.find("device") != nullptr) info.device = plain_text(object, "device");
  info.state = read_state(object, info.stage, info.step);
  const auto ordered = ordered_json::parse(text);
  info.model_config_json =
      ordered.contains("model_config") ? ordered["model_config"].dump(2) + "\n" : "";
  manifest.config =
      models::parse_model_config(info.model_config_json, path.string() + ": model_config");
  manifest.flat_size = object.integer("flat_size", 1, kMaxBytes);
  check_table(object, models::ParameterTable(manifest.config), manifest.flat_size);

  const json& files = list_field(object, "files");
  const int64_t ranks = files.size();
  if (ranks < 1 || ranks > kMaxRanks)
    object.reject("files", "the slices of at least one rank are needed");
  for (const json& file : files) {
    const std::string name = checkpoint_slice_name(std::ssize(manifest.slices), ranks);
    manifest.slices.push_back(read_entry(file, path.string() + ": files", name));
  }
  check_cover(path.string(), manifest.slices, manifest.flat_size);
  const auto companions = companion_files();
  size_t next = 0;  // the names come in the order of companion_files(), each at most once
  for (const json& value : list_field(object, "tokenizer_files")) {
    const std::string where = path.string() + ": tokenizer_files";
    const std::string name = JsonObject(value, where).text("name");
    while (next < companions.size() &&
           name != fmt::format("{}/{}", kTokenizerFolder, companions[next]))
      ++next;
    if (next == companions.size())
      fail("{}: {} is no tokenizer file", where, json_excerpt(json(name)));
    manifest.tokenizer.push_back(read_entry(value, where, name));
    ++next;
  }

  for (const auto* list : {&manifest.slices, &manifest.tokenizer}) {
    for (const CheckpointFileEntry& entry : *list) {
      std::error_code error;
      const int64_t bytes = fs::file_size(folder / entry.name, error);
      if (error) fail("{}: {}", (folder / entry.name).string(), error.message());
      if (bytes != entry.bytes) {
        fail("{}: {} bytes, its manifest says {}", (folder / entry.name).string(), bytes,
             entry.bytes);
      }
    }
  }
  return manifest;
}

}  // namespace orrery::storage
