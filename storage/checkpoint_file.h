// One rank's file of a checkpoint. It is HDF5 with the datasets `weights`, `adam_m` and
// `adam_v` (float32, contiguous, neither chunked nor compressed), which hold some
// extents of the flat buffers one after the other, and the root attributes `extents`
// (int64 [n, 2], begin and end of each) and `flat_size`.
//
// Thread-safe. The HDF5 library need not be: it is called under the process's one lock
// (storage/hdf5_lock.h). A writer holds the lock while a file is laid out in memory,
// not while the disk is written.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/extent.h"
#include "core/low_priority_worker.h"

namespace orrery::storage {

/// This rank's part of the three flat buffers: some rising extents, whose elements each
/// span has one after the other.
struct CheckpointSlice {
  std::span<const Extent> extents;
  std::span<const float> weights, adam_m, adam_v;
};

/// Size and digest of a file that was written.
struct SliceFile {
  int64_t bytes = 0;
  std::string sha256;
};

/// Writes, hashes and fsyncs the file, in pieces. On failure (a full disk too) removes
/// the file and throws an Error. Besides the slice it takes very little memory.
SliceFile write_slice_file(const std::filesystem::path& path, int64_t flat_size,
                           const CheckpointSlice& slice, const PieceRunner& run_piece = run_inline);

/// Throws an Error unless the file agrees with its manifest: it has these extents, this
/// flat_size, and three datasets of as many float32 values. Reads no numbers. The
/// file's digest must have been checked.
void check_slice_file(const std::filesystem::path& path, std::span<const Extent> extents,
                      int64_t flat_size);

/// Reads those of the elements `wanted` of the flat buffers that the file holds, into
/// the same places of `out` (spans of wanted.size() elements, or empty to skip a
/// dataset). `extents` are the file's, as its manifest has them. The file's digest must
/// have been checked, because HDF5 does not promise to survive hostile bytes.
void read_slice_file(const std::filesystem::path& path, std::span<const Extent> extents,
                     int64_t flat_size, const Extent& wanted, std::array<std::span<float>, 3> out);

}  // namespace orrery::storage
