#include "storage/checkpoint_v2.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"
#include "storage/hdf5_handle.h"
#include "storage/hdf5_lock.h"
#include "storage/manifest_fields.h"

namespace orrery::storage {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxElements = int64_t{1} << 60;

struct FileV2 {
  CheckpointFileEntry entry;
  std::vector<Extent> extents;  // of the flat buffers, rising
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
  FileV2 file{read_file_entry(object, name), {}};
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
/// overlap.
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
           *shape == json(expected.shape) && offset >= end;
    end = offset + expected.size;
    manifest.offsets.push_back(offset);
  }
  if (!same || end > manifest.flat_size)
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
  for (const FileV2& file : manifest.files) verify_file(folder, file.entry);
  for (const CheckpointFileEntry& entry : manifest.tokenizer) verify_file(folder, entry);
  return manifest;
}

/// What of the tensors a file holds, and where in its datasets.
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

/// The three datasets, whole.
std::array<std::vector<float>, 3> read_numbers_v2(const fs::path& path, const FileV2& file,
                                                  int64_t flat_size) {
  const Hdf5Lock lock;
  const QuietHdf5 quiet;
  const Hdf5Handle h5(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                      fmt::format("open {}", path.string()));
  const auto integers = [&](const char* name, int64_t count) {
    const Hdf5Handle attribute(H5Aopen(h5, name, H5P_DEFAULT), H5Aclose,
                               fmt::format("open {} of {}", name, path.string()));
    const Hdf5Handle space(H5Aget_space(attribute), H5Sclose, "read a dataspace");
    std::vector<int64_t> values(count);
    const bool ok = H5Sget_simple_extent_npoints(space) == count &&
                    (count == 0 || H5Aread(attribute, H5T_NATIVE_INT64, values.data()) >= 0);
    if (!ok) values.clear();
    return values;
  };
  std::vector<int64_t> bounds;
  for (const Extent& e : file.extents) bounds.insert(bounds.end(), {e.begin, e.end});
  if (integers("extents", std::ssize(bounds)) != bounds ||
      integers("flat_size", 1) != std::vector{flat_size})
    fail("{}: its extents are not those in the manifest", path.string());
  std::array<std::vector<float>, 3> numbers;
  const hsize_t held = total_size(file.extents);
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    const Hdf5Handle dataset(H5Dopen2(h5, kKinds[kind], H5P_DEFAULT), H5Dclose,
                             fmt::format("open {} of {}", kKinds[kind], path.string()));
    const Hdf5Handle space(H5Dget_space(dataset), H5Sclose, "read a dataspace");
    const Hdf5Handle type(H5Dget_type(dataset), H5Tclose, "read a type");
    hsize_t stored = 0;
    const bool fits = H5Sget_simple_extent_ndims(space) == 1 &&
                      H5Sget_simple_extent_dims(space, &stored, nullptr) == 1 && stored == held &&
                      H5Tequal(type, H5T_IEEE_F32LE) > 0;
    if (!fits) fail("{}: {} is not {} float32 values", path.string(), kKinds[kind], held);
    numbers[kind].resize(held);
    if (held > 0 &&
        H5Dread(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers[kind].data()) < 0)
      fail("{}: HDF5 cannot read {}", path.string(), kKinds[kind]);
  }
  return numbers;
}

/// Reads the file that was written of `part` and compares the bits.
void check_written(const fs::path& path, const ModulePart& part, const HeldModules& held) {
  const auto tensors = held.find(part.module.name);
  if (tensors == held.end()) return;
  const std::array<std::span<const float>, 3> numbers = {part.weights, part.adam_m, part.adam_v};
  std::vector<float> read(part.weights.size());
  for (size_t kind = 0; kind < kKinds.size(); ++kind) {
    std::array<std::span<float>, 3> out;
    out[kind] = read;
    read_rank_file(path, part.module, tensors->second, part.slices, out);
    for (const models::HeldSlice& s : part.slices) {
      const size_t bytes = s.elements.size() * sizeof(float);
      if (std::memcmp(read.data() + s.at, numbers[kind].data() + s.at, bytes) != 0)
        fail("{}: what was written of {} is read back otherwise", path.string(),
             part.module.tensors[s.tensor].name);
    }
  }
}

}  // namespace

int64_t checkpoint_version(const fs::path& folder) { return read_manifest_text(folder).version; }

void convert_checkpoint_v2(const fs::path& from, const fs::path& to) {
  const ManifestV2 manifest = read_manifest_v2(from);
  if (fs::exists(to)) fail("{} exists; name a new folder", to.string());
  fs::path temporary = to;
  temporary += ".tmp-convert";
  std::error_code error;
  fs::remove_all(temporary, error);
  fs::create_directories(temporary, error);
  if (error) fail("cannot create {}: {}", temporary.string(), error.message());
  try {
    const int64_t ranks = std::ssize(manifest.files);
    std::vector<CheckpointFileEntry> entries;
    for (const FileV2& file : manifest.files) {
      const auto numbers = read_numbers_v2(from / file.entry.name, file, manifest.flat_size);
      const ModulePart part{manifest.policy, slices_of(manifest, file), numbers[0], numbers[1],
                            numbers[2]};
      entries.push_back(write_checkpoint_part(temporary, std::ssize(entries), ranks, {&part, 1}));
      check_written(temporary / entries.back().name, part, entries.back().slices);
    }
    publish_checkpoint(temporary, to, manifest.info, {&manifest.policy, 1}, entries,
                       manifest.tokenizer.empty() ? fs::path() : from / kTokenizerFolder);
  } catch (...) {
    fs::remove_all(temporary, error);
    throw;
  }
}

}  // namespace orrery::storage
