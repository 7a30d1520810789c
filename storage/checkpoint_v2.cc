#include "storage/checkpoint_v2.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/fault.h"
#include "storage/hdf5_dataset.h"
#include "storage/hdf5_lock.h"
#include "storage/manifest_fields.h"
#include "storage/new_folder.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kAlign = 16;  // elements of the flat buffers

int64_t aligned(int64_t elements) { return (elements + kAlign - 1) / kAlign * kAlign; }

struct FileV2 {
  CheckpointFileEntry entry;
  std::vector<Extent> extents;            // of the flat buffers, rising
  std::vector<models::HeldSlice> slices;  // of the tensors; `at`: place in the datasets
};

struct ManifestV2 {
  CheckpointInfo info;
  StoredModule policy;
  std::vector<int64_t> offsets;  // of each tensor in the flat buffers
  int64_t flat_size = 0;
  std::vector<FileV2> files;
  std::vector<CheckpointFileEntry> tokenizer;
};

FileV2 read_file_v2(const JsonObject& object, const std::string& name) {
  FileV2 file{read_file_entry(object, name), {}, {}};
  int64_t end = 0;
  for (const json& pair : list_field(object, "extents")) {
    const bool two = pair.is_array() && pair.size() == 2;
    const auto first = two ? json_integer(pair[0]) : std::nullopt;
    const auto last = two ? json_integer(pair[1]) : std::nullopt;
    if (!first || !last || *first < end || *last <= *first || *last > kMaxElements) {
      fail("{}: extents of {} hold {}; a rising list of [begin, end] is needed", object.where(),
           name, json_excerpt_nested(pair));
    }
    file.extents.push_back({*first, *last});
    end = *last;
  }
  return file;
}

/// Throws an Error unless every element is in exactly one extent of one file.
void check_extents_cover(const std::string& where, const ManifestV2& manifest) {
  std::vector<Extent> all;
  for (const FileV2& file : manifest.files)
    all.insert(all.end(), file.extents.begin(), file.extents.end());
  std::sort(all.begin(), all.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  int64_t cursor = 0;
  for (const Extent& extent : all) {
    if (extent.begin != cursor)
      fail("{}: an extent [{}, {}) where one from {} was expected", where, extent.begin, extent.end,
           cursor);
    cursor = extent.end;
  }
  if (cursor != manifest.flat_size)
    fail("{}: its extents end at {} of {}", where, cursor, manifest.flat_size);
}

/// Throws an Error unless `tensors` is the policy's, at offsets that rise without
/// overlap and with no larger gaps than the programs of then left: a manifest must not
/// ask for more memory than there are numbers.
void read_offsets(const JsonObject& object, ManifestV2& manifest) {
  int64_t end = 0;
  const json& list = list_field(object, "tensors");
  bool same = std::ssize(list) == std::ssize(manifest.policy.tensors);
  for (size_t i = 0; same && i < list.size(); ++i) {
    const JsonObject tensor(list[i], object.where() + ": tensors");
    const StoredTensor& expected = manifest.policy.tensors[i];
    const int64_t offset = tensor.integer("offset", 0, kMaxElements);
    const json* shape = tensor.find("shape");
    same = tensor.text("name") == expected.name && shape != nullptr &&
           *shape == json(expected.shape) && end <= offset && offset <= aligned(end);
    end = offset + expected.size;
    manifest.offsets.push_back(offset);
  }
  if (!same || manifest.flat_size < end || manifest.flat_size > aligned(end))
    fail("{}: its table of tensors is not the one of its model_config", object.where());
}

ManifestV2 read_manifest_v2(const fs::path& folder) {
  const ManifestText source = read_manifest_text(folder);
  if (source.version != kConvertedVersion) {
    fail("{} is of format version {}; version {} is what can be converted{}", folder.string(),
         source.version, kConvertedVersion,
         source.version == kFormatVersion ? ", and this program reads it as it is" : "");
  }
  const JsonObject object(source.json, source.path);
  ManifestV2 manifest;
  manifest.info = read_info(object, source.text);
  manifest.policy = stored_module(models::ParameterTable(
      models::parse_model_config(manifest.info.model_config_json, source.path + ": model_config")));
  manifest.flat_size = object.integer("flat_size", 1, kMaxElements);
  read_offsets(object, manifest);
  for_each_rank_file(object, [&](const JsonObject& file, const std::string& name) {
    manifest.files.push_back(read_file_v2(file, name));
  });
  check_extents_cover(source.path, manifest);
  manifest.tokenizer = read_tokenizer_entries(object);
  return manifest;
}

/// The slices of the tensors that a file holds, each with its place in the datasets.
std::vector<models::HeldSlice> slices_of(const ManifestV2& manifest, const FileV2& file) {
  std::vector<models::HeldSlice> slices;
  int64_t at = 0, tensor = 0;
  for (const Extent& extent : file.extents) {
    for (; tensor < std::ssize(manifest.offsets) && manifest.offsets[tensor] < extent.end;
         ++tensor) {
      const int64_t offset = manifest.offsets[tensor];
      const int64_t end = offset + manifest.policy.tensors[tensor].size;
      const int64_t first = std::max(offset, extent.begin), last = std::min(end, extent.end);
      if (first < last)
        slices.push_back({tensor, {first - offset, last - offset}, at + (first - extent.begin)});
      if (end > extent.end) break;  // the next extent may have more of it
    }
    at += extent.size();
  }
  return slices;
}

/// An open file of a checkpoint, which has what the manifest says.
class OpenFileV2 {
 public:
  OpenFileV2(const fs::path& path, const FileV2& file, int64_t flat_size) : file_(open_hdf5(path)) {
    std::vector<int64_t> bounds;
    for (const Extent& e : file.extents) bounds.insert(bounds.end(), {e.begin, e.end});
    if (integer_attribute(file_, "extents", std::ssize(bounds)) != bounds ||
        integer_attribute(file_, "flat_size", 1) != std::vector{flat_size})
      fail("{}: its extents are not those in the manifest", path.string());
    for (const char* kind : kKinds) {
      datasets_.emplace_back(file_, kind, path, kind);
      datasets_.back().check(total_size(file.extents));
    }
  }
  void read(int64_t kind, int64_t start, Span<float> out) const {
    if (!out.empty()) datasets_[kind].read(start, out);
  }

 private:
  const Hdf5Lock lock_;
  const QuietHdf5 quiet_;
  const Hdf5Handle file_;
  std::vector<FloatDataset> datasets_;  // by kind
};

}  // namespace

int64_t checkpoint_version(const fs::path& folder) { return read_manifest_text(folder).version; }

struct CheckpointV2::Source : ManifestV2 {
  fs::path folder;

  std::array<std::vector<float>, 3> numbers(const FileV2& file) const {
    const OpenFileV2 open(folder / file.entry.name, file, flat_size);
    std::array<std::vector<float>, 3> all;
    for (int64_t kind = 0; kind < std::ssize(kKinds); ++kind) {
      all[kind].resize(total_size(file.extents));
      open.read(kind, 0, all[kind]);
    }
    return all;
  }

  /// Reads the files anew, tensor by tensor.
  std::string hash() const {
    std::vector<float> chunk;
    std::optional<OpenFileV2> open;
    const FileV2* opened = nullptr;
    return checkpoint_hash(info.step, policy, [&](int64_t kind, int64_t tensor, const Extent& e) {
      chunk.resize(e.size());
      for (const FileV2& file : files) {
        const auto by_tensor = [](const auto& a, const auto& b) { return a.tensor < b.tensor; };
        const auto [first, last] = std::equal_range(file.slices.begin(), file.slices.end(),
                                                    models::HeldSlice{tensor, {}, 0}, by_tensor);
        for (auto slice = first; slice != last; ++slice) {
          const Extent& held = slice->elements;
          const int64_t begin = std::max(e.begin, held.begin), end = std::min(e.end, held.end);
          if (begin >= end) continue;
          if (opened != &file) open.emplace(folder / file.entry.name, file, flat_size);
          opened = &file;
          open->read(kind, slice->at + begin - held.begin,
                     Span<float>(chunk).subspan(begin - e.begin, end - begin));
        }
      }
      return std::span<const float>(chunk);
    });
  }
};

CheckpointV2::CheckpointV2(const fs::path& folder) {
  Source source{read_manifest_v2(folder), folder};
  for (FileV2& file : source.files) {
    verify_file(folder, file.entry);
    const OpenFileV2 checked(folder / file.entry.name, file, source.flat_size);
    file.slices = slices_of(source, file);
  }
  for (const CheckpointFileEntry& entry : source.tokenizer) verify_file(folder, entry);
  source_ = std::make_unique<const Source>(std::move(source));
}

CheckpointV2::~CheckpointV2() = default;

int64_t CheckpointV2::step() const { return source_->info.step; }

std::string CheckpointV2::convert(const fs::path& to) const {
  NewFolder made(to);
  const fs::path& folder = made.temporary();
  const int64_t ranks = std::ssize(source_->files);
  std::vector<CheckpointFileEntry> entries;
  for (const FileV2& file : source_->files) {
    const auto numbers = source_->numbers(file);
    const ModulePart part{source_->policy, file.slices, numbers[0], numbers[1], numbers[2]};
    const std::string name = rank_file_name(std::ssize(entries), ranks);
    RankFile made_file = write_rank_file(folder / name, {&part, 1});
    entries.push_back(
        {name, made_file.bytes, std::move(made_file.sha256), held_modules({&part, 1})});
  }
  complete_checkpoint(folder, source_->info, {&source_->policy, 1}, entries,
                      source_->tokenizer.empty() ? fs::path() : source_->folder / kTokenizerFolder);
  const Checkpoint written(folder);
  std::string hash = checkpoint_hash(written);
  if (hash != source_->hash()) {
    fail("{}: the numbers that were written are not those of {}", folder.string(),
         source_->folder.string());
  }
  for (const CheckpointFileEntry& entry : source_->tokenizer) {
    const auto& copies = written.manifest().tokenizer;
    if (std::none_of(copies.begin(), copies.end(), [&](const CheckpointFileEntry& copy) {
          return copy.name == entry.name && copy.sha256 == entry.sha256;
        }))
      fail("{}: {} is not a copy of the one in {}", folder.string(), entry.name,
           source_->folder.string());
  }
  fault_point(FaultPoint::kCheckpointPublish);
  made.publish();
  return hash;
}

}  // namespace orrery::storage
