// Reading datasets of float32 values from a file that anybody may have made: what a
// dataset is gets checked before a value is read. Code that uses this holds an
// Hdf5Lock.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/span.h"
#include "storage/hdf5_handle.h"

namespace orrery::storage {

Hdf5Handle open_hdf5(const std::filesystem::path& path);

/// Whether the object lies in the file itself. Soft and external links are not
/// followed.
bool is_in_file(hid_t group, const std::string& name);

/// The integers of an attribute that has `count` of them; empty when it has not.
std::vector<int64_t> integer_attribute(hid_t object, const char* name, int64_t count);

class FloatDataset {
 public:
  /// Opens `link` of the group. `path` and `name` (from the root group) are for errors.
  FloatDataset(hid_t group, const std::string& link, const std::filesystem::path& path,
               std::string name);

  hid_t id() const { return dataset_; }
  /// Throws an Error that names the dataset.
  [[noreturn]] void refuse(const std::string& problem) const;
  /// Error unless it is a list of `count` float32 values that lies in the file itself
  /// in one piece: neither chunked (so no filter meets them), nor in another file.
  void check(int64_t count) const;
  /// Reads `out.size()` values from value `start` on.
  void read(int64_t start, Span<float> out) const;

 private:
  std::string path_, name_;
  Hdf5Handle dataset_, space_;
};

}  // namespace orrery::storage
