#include "storage/hf_folder.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <map>
#include <set>

#include "core/error.h"
#include "core/extent.h"
#include "core/file.h"
#include "core/json_read.h"
#include "core/lfs_pointer.h"
#include "core/parallel.h"
#include "storage/safetensors.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kLmHead = "lm_head.weight";
constexpr int64_t kReadingElements = 1 << 20;  // one thread reads so many at a time

/// A name that stays inside its folder.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

/// All tensors of a folder, by name.
struct FolderTensors {
  std::vector<SafetensorsFile> files;
  struct Place {
    const SafetensorsFile* file;
    const SafetensorsTensor* tensor;
  };
  std::map<std::string, Place, std::less<>> by_name;

  const Place* find(std::string_view name) const {
    const auto it = by_name.find(name);
    return it == by_name.end() ? nullptr : &it->second;
  }
};

/// Tensor name -> file name, as the index states it (names checked).
std::map<std::string, std::string> read_index(const fs::path& path) {
  const json parsed = parse_json_strictly(read_model_file(path), path.string());
  const JsonObject index(parsed, path.string());
  const json* weight_map = index.find("weight_map");
  if (weight_map == nullptr || !weight_map->is_object())
    index.reject("weight_map", "an object is needed");
  std::map<std::string, std::string> result;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string() || !is_plain_name(file.get<std::string>())) {
      fail("{}: tensor {} is said to be in {}; the name of a file in the same folder is needed",
           path.string(), json_excerpt(json(tensor)), json_excerpt(file));
    }
    result.emplace(tensor, file.get<std::string>());
  }
  return result;
}

FolderTensors open_tensors(const fs::path& folder) {
  FolderTensors result;
  std::map<std::string, std::string> index;
  if (fs::exists(folder / kSingleFile)) {
    result.files.emplace_back(folder / kSingleFile);
  } else if (fs::exists(folder / kIndexFile)) {
    index = read_index(folder / kIndexFile);
    std::set<std::string> names;
    for (const auto& [tensor, file] : index) names.insert(file);
    result.files.reserve(names.size());
    for (const std::string& name : names) {
      if (!fs::exists(folder / name))
        fail("{} names {}, which is missing", (folder / kIndexFile).string(), name);
      result.files.emplace_back(folder / name);
    }
  } else {
    const bool pickled = fs::exists(folder / "pytorch_model.bin") ||
                         fs::exists(folder / "pytorch_model.bin.index.json");
    fail("{} holds neither {} nor {}{}", folder.string(), kSingleFile, kIndexFile,
         pickled ? "; pytorch_model.bin is not read, save the model as safetensors" : "");
  }
  for (const SafetensorsFile& file : result.files) {
    for (const SafetensorsTensor& tensor : file.tensors()) {
      if (!result.by_name.emplace(tensor.name, FolderTensors::Place{&file, &tensor}).second) {
        fail("{}: tensor {} is in two of the shards", folder.string(), tensor.name);
      }
    }
  }
  for (const auto& [tensor, name] : index) {
    const auto* place = result.find(tensor);
    if (place == nullptr || place->file->path().filename() != name) {
      fail("{}: tensor {} is not in {}, where {} says it is", folder.string(), tensor, name,
           kIndexFile);
    }
  }
  return result;
}

/// Whether a tensor is a buffer that old exporters wrote and we compute from the
/// config.
bool is_computed_buffer(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

/// `first` is the index of values[0] in its tensor.
void check_finite(const fs::path& path, std::string_view name, int64_t first,
                  Span<const float> values) {
  constexpr uint32_t kExponent = 0x7F800000u;
  const auto finite = [](float v) { return (std::bit_cast<uint32_t>(v) & kExponent) != kExponent; };
  constexpr int64_t kBlock = 256;  // a loop of constant length is vectorised
  int64_t at = 0;
  for (; at + kBlock <= values.size(); at += kBlock) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < kBlock; ++i) bad |= finite(values[at + i]) ? 0u : 1u;
    if (bad != 0) break;
  }
  while (at < values.size() && finite(values[at])) ++at;
  if (at == values.size()) return;
  fail("{}: {}[{}] is {}; the weights are damaged", path.string(), name, first + at, values[at]);
}

void check_shape(const FolderTensors::Place& place, const models::Parameter& parameter) {
  if (place.tensor->shape == parameter.shape) return;
  fail("{}: {} has shape {}, config.json makes it {}", place.file->path().string(),
       place.tensor->name, shape_text(place.tensor->shape), shape_text(parameter.shape));
}

/// Some elements of a tensor, and where they go.
struct Reading {
  const FolderTensors::Place* place;
  int64_t begin;
  std::span<float> out;

  void run() const {
    place->file->read_f32(*place->tensor, begin, out);
    check_finite(place->file->path(), place->tensor->name, begin, out);
  }
};

void reject_unknown_tensors(const fs::path& folder, const models::ModelConfig& config,
                            const models::ParameterTable& table, const FolderTensors& tensors) {
  std::vector<std::string> unknown;
  for (const auto& [name, place] : tensors.by_name) {
    const bool tied_head = config.tie_word_embeddings && name == kLmHead;
    if (table.find(name) == nullptr && !tied_head && !is_computed_buffer(name))
      unknown.push_back(name);
  }
  if (unknown.empty()) return;
  fail("{}: {} tensor{} a {} of config.json has no place for: {}{}", folder.string(),
       unknown.size(), unknown.size() == 1 ? "" : "s", config.model_type, unknown.front(),
       unknown.size() == 1 ? "" : ", ...");
}

/// The tensor of a parameter, which must be there with its shape.
const FolderTensors::Place& place_of(const fs::path& folder, const models::ModelConfig& config,
                                     const FolderTensors& tensors,
                                     const models::Parameter& parameter) {
  const auto* place = tensors.find(parameter.name);
  if (place == nullptr && config.tie_word_embeddings && parameter.name == kEmbedding)
    place = tensors.find(kLmHead);
  if (place == nullptr) {
    fail("{}: tensor {} is missing{}", folder.string(), parameter.name,
         parameter.name == kLmHead ? " and config.json does not say \"tie_word_embeddings\": true"
                                   : "");
  }
  check_shape(*place, parameter);
  return *place;
}

struct Shard {
  std::string name;
  std::vector<SafetensorsOutput> tensors;
};

std::vector<Shard> cut_into_shards(const models::ParameterTable& table, std::span<const float> flat,
                                   DType dtype, int64_t max_bytes) {
  std::vector<Shard> shards(1);
  int64_t bytes = 0;
  for (const models::Parameter& p : table.parameters()) {
    const int64_t size = p.size * dtype_bytes(dtype);
    if (bytes > 0 && bytes + size > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().tensors.push_back({p.name, p.shape, table.values(Span(flat), p)});
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].name = shards.size() == 1
                         ? std::string(kSingleFile)
                         : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
  }
  return shards;
}

void write_index(const fs::path& path, std::span<const Shard> shards, int64_t total_bytes) {
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total_bytes;
  for (const Shard& shard : shards) {
    for (const SafetensorsOutput& tensor : shard.tensors)
      index["weight_map"][tensor.name] = shard.name;
  }
  write_file_atomic(path, index.dump(2) + "\n");
}

std::string_view torch_dtype_name(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kBF16 ? "bfloat16" : "float16";
}

/// Removes a half-written folder unless told that it was published.
struct FolderGuard {
  fs::path path;
  ~FolderGuard() {
    std::error_code ignored;
    if (!path.empty()) fs::remove_all(path, ignored);
  }
};

}  // namespace

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / kSingleFile) || fs::exists(folder / kIndexFile);
}

void check_hf_weights(const fs::path& folder, const models::ModelConfig& config,
                      const models::ParameterTable& table) {
  const FolderTensors tensors = open_tensors(folder);
  reject_unknown_tensors(folder, config, table, tensors);
  for (const models::Parameter& p : table.parameters()) {
    const FolderTensors::Place& place = place_of(folder, config, tensors, p);
    place.file->read_f32(*place.tensor, 0, {});  // refuses a type that is not read
  }
}

void load_hf_weights(const Context& ctx, const fs::path& folder, const models::ModelConfig& config,
                     const models::ParameterTable& table, std::span<float> flat) {
  ORRERY_CHECK(std::ssize(flat) == table.flat_size(), "flat buffer of {} elements", flat.size());
  const FolderTensors tensors = open_tensors(folder);
  reject_unknown_tensors(folder, config, table, tensors);
  std::vector<Reading> readings;
  const FolderTensors::Place* second_head = nullptr;  // beside tied embeddings
  const Span<float> all = flat;
  float* filled = all.begin();
  for (const models::Parameter& p : table.parameters()) {
    const auto* place = &place_of(folder, config, tensors, p);
    const bool tied = config.tie_word_embeddings && p.name == kEmbedding;
    const Span<float> values = table.values(all, p);
    std::fill(filled, values.begin(), 0.0f);  // the gap before it
    filled = values.end();
    for (int64_t at = 0; at < p.size; at += kReadingElements) {
      const Extent extent{at, std::min(at + kReadingElements, p.size)};
      readings.push_back({place, at, elements_of(values, extent)});
    }
    const auto* head = tied ? tensors.find(kLmHead) : nullptr;
    if (head == nullptr || head->tensor == place->tensor) continue;
    check_shape(*head, p);
    second_head = head;
  }
  std::fill(filled, all.end(), 0.0f);
  parallel_items(ctx, std::ssize(readings), [&](int64_t i) { readings[i].run(); });

  if (second_head == nullptr) return;
  const std::span<const float> values = table.values(Span(flat), *table.find(kEmbedding));
  std::vector<float> second(values.size());
  Reading{second_head, 0, second}.run();
  const auto differ = std::mismatch(values.begin(), values.end(), second.begin());
  if (differ.first != values.end()) {
    fail("{}: config.json ties the embeddings, but {} and {} differ (element {}: {} and {})",
         folder.string(), kEmbedding, kLmHead, differ.first - values.begin(), *differ.first,
         *differ.second);
  }
}

std::span<const std::string_view> companion_files() {
  static constexpr std::array<std::string_view, 9> kNames = {"tokenizer.json",
                                                             "tokenizer_config.json",
                                                             "special_tokens_map.json",
                                                             "added_tokens.json",
                                                             "vocab.json",
                                                             "merges.txt",
                                                             "tokenizer.model",
                                                             "chat_template.jinja",
                                                             "generation_config.json"};
  return kNames;
}

std::vector<std::string_view> copy_companion_files(const fs::path& from, const fs::path& to) {
  std::vector<std::string_view> copied;
  for (const std::string_view name : companion_files()) {
    if (!fs::exists(from / name)) continue;
    write_file_atomic(to / name, read_file(from / name));
    copied.push_back(name);
  }
  return copied;
}

void save_hf_folder(const fs::path& out, const models::ModelConfig& config,
                    const models::ParameterTable& table, std::span<const float> flat, DType dtype,
                    const fs::path& tokenizer_source, int64_t max_shard_bytes) {
  ORRERY_CHECK(std::ssize(flat) == table.flat_size(), "flat buffer of {} elements", flat.size());
  const fs::path target = (out.has_filename() ? out : out.parent_path()).lexically_normal();
  if (fs::exists(target) && (!fs::is_directory(target) || !fs::is_empty(target))) {
    fail("{} exists and is not an empty folder; name a new one", target.string());
  }
  for (const models::Parameter& p : table.parameters()) {
    check_finite(target, p.name, 0, table.values(Span(flat), p));
  }
  fs::path temporary = target;
  temporary += fmt::format(".tmp-{}", ::getpid());
  std::error_code error;
  fs::create_directories(temporary, error);
  if (error) fail("cannot create {}: {}", temporary.string(), error.message());
  FolderGuard guard{temporary};

  write_file_atomic(temporary / "config.json",
                    models::model_config_json(config, std::string(torch_dtype_name(dtype))));
  if (!tokenizer_source.empty()) copy_companion_files(tokenizer_source, temporary);
  const std::vector<Shard> shards = cut_into_shards(table, flat, dtype, max_shard_bytes);
  for (const Shard& shard : shards) {
    write_safetensors(temporary / shard.name, shard.tensors, dtype, {{"format", "pt"}});
  }
  if (shards.size() > 1) {
    write_index(temporary / kIndexFile, shards, table.parameter_count() * dtype_bytes(dtype));
  }
  fs::rename(temporary, target, error);
  if (error)
    fail("cannot rename {} to {}: {}", temporary.string(), target.string(), error.message());
  guard.path.clear();
  const fs::path parent = target.parent_path();
  sync_path(parent.empty() ? fs::path(".") : parent);
}

}  // namespace orrery::storage
