// What a checkpoint holds, by name: its modules, their tensors, and which slices of
// each tensor are in which file. A slice is a stretch [begin, end) of a tensor's
// elements in row-major order.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/extent.h"
#include "core/json_read.h"
#include "models/parameters.h"

namespace orrery::storage {

/// The kinds of numbers, in the order of files and digests. A module that is not
/// trainable has the first alone.
inline constexpr std::array<const char*, 3> kKinds = {"weights", "adam_m", "adam_v"};
/// float32, little-endian: the only type of numbers that this program writes and reads.
inline constexpr std::string_view kStoredType = "f32";
/// Sizes and places above it are refused, so that sums of a few stay whole numbers.
inline constexpr int64_t kMaxElements = int64_t{1} << 60;

struct StoredTensor {
  std::string name;            ///< Hugging Face's
  std::vector<int64_t> shape;  ///< of the whole tensor
  int64_t size = 0;            ///< product of shape

  friend bool operator==(const StoredTensor&, const StoredTensor&) = default;
};

struct StoredModule {
  std::string name;  ///< letters, digits, '_' and '-'
  bool trainable = true;
  std::vector<StoredTensor> tensors;

  int64_t kinds() const { return trainable ? std::ssize(kKinds) : 1; }
  friend bool operator==(const StoredModule&, const StoredModule&) = default;
};

/// The module that a table describes, its tensors in the table's order.
StoredModule stored_module(const models::ParameterTable& table);

/// The module of that name. An Error that begins with `where` lists the modules that
/// there are when it is none of them.
const StoredModule& find_module(std::span<const StoredModule> modules, std::string_view name,
                                const std::string& where);

/// Slices by the names of module and tensor, rising, none of them empty.
using HeldTensors = std::map<std::string, std::vector<Extent>>;
using HeldModules = std::map<std::string, HeldTensors>;

/// One file of a checkpoint folder.
struct CheckpointFileEntry {
  std::string name;  ///< relative to the folder
  int64_t bytes = 0;
  std::string sha256;
  HeldModules slices;  ///< of a rank's file
};

/// Throws an Error that begins with `where` unless all files together hold every
/// element of every tensor once, and nothing else.
void check_cover(const std::string& where, std::span<const StoredModule> modules,
                 std::span<const CheckpointFileEntry> files);

nlohmann::ordered_json modules_json(std::span<const StoredModule> modules);
nlohmann::ordered_json slices_json(const HeldModules& slices);

/// Both trust nothing: an Error names the value that is not as modules_json() and
/// slices_json() write it, or of which there are two.
std::vector<StoredModule> read_modules(const JsonObject& manifest);
HeldModules read_slices(const JsonObject& file);

}  // namespace orrery::storage
