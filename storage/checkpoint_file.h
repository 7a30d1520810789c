// One rank's file of a checkpoint: HDF5 with the datasets `weights`, `adam_m`, `adam_v`
// (float32, contiguous, neither chunked nor compressed), which hold some extents of the
// flat buffers one after the other, and the root attributes `extents` (int64 [n, 2],
// begin and end of each) and `flat_size`.
//
// Thread-safe. The HDF5 library need not be, and is called under one lock of the
// process (storage/hdf5_lock.h): a writer holds it while a file is laid out in memory,
// not while the disk is written.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/extent.h"
#include "core/quiet_worker.h"

namespace orrery::storage {

/// This rank's part of the three flat buffers: some extents, rising; each span has
/// their elements one after the other.
struct CheckpointSlice {
  std::span<const Extent> extents;
  std::span<const float> weights, adam_m, adam_v;
};

/// What was written.
struct SliceFile {
  int64_t bytes = 0;
  std::string sha256;
};

/// Writes, hashes and fsyncs the file, in pieces. On failure (a full disk too) removes
/// it and throws an Error. Beside the slice it takes no memory to speak of.
SliceFile write_slice_file(const std::filesystem::path& path, int64_t flat_size,
                           const CheckpointSlice& slice,
                           const PieceRunner& run_piece = run_at_once);

/// Throws Error unless the file says of itself what its manifest does: these extents,
/// this flat_size, and three datasets of so many float32. Reads no numbers. The file's
/// digest must have been checked.
void check_slice_file(const std::filesystem::path& path, std::span<const Extent> extents,
                      int64_t flat_size);

/// Reads what the file holds of `wanted`, elements of the flat buffers, into the same
/// places of `out` (spans of wanted.size(), or empty to skip that dataset). extents:
/// the file's, as its manifest has them. The file's digest must have been checked: HDF5
/// does not promise to survive hostile bytes.
void read_slice_file(const std::filesystem::path& path, std::span<const Extent> extents,
                     int64_t flat_size, const Extent& wanted, std::array<std::span<float>, 3> out);

}  // namespace orrery::storage
