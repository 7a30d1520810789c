// The structure of a rank's HDF5 file, which HDF5 lays out in memory, without the
// numbers. HDF5 does not touch the disk, because HDF5 1.10 cannot close its file when a
// disk fails, and crashes at exit. The real file gets plain writes, whose failures are
// plain (storage/checkpoint_file.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "core/extent.h"
#include "core/span.h"
#include "storage/checkpoint_contents.h"

namespace orrery::storage {

/// The dataset /<module>/<kind>/<tensor>.
struct PlannedDataset {
  const StoredModule* module = nullptr;
  int64_t kind = 0;  ///< index in kKinds
  const StoredTensor* tensor = nullptr;
  std::span<const Extent> slices;  ///< rising, at least one
};

/// A file from which the numbers are missing.
class FileLayout {
 public:
  /// Datasets of one module and kind come together. `path` is for errors alone. Takes
  /// the HDF5 lock for a few datasets at a time.
  FileLayout(const std::filesystem::path& path, std::span<const PlannedDataset> datasets);

  int64_t bytes() const { return bytes_; }  ///< of the file
  /// Where the numbers of each dataset begin: rising, all of them behind the structure.
  Span<const int64_t> offsets() const { return offsets_; }
  /// The file's first bytes. Those beyond are numbers or zero.
  Span<const std::byte> image() const { return {image_.get(), image_bytes_}; }

 private:
  bool build(const std::filesystem::path& path, std::span<const PlannedDataset> datasets,
             int64_t structure_bytes);

  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> image_;
  int64_t image_bytes_ = 0, bytes_ = 0;
  std::vector<int64_t> offsets_;
};

}  // namespace orrery::storage
