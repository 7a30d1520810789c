// One rank's file of a checkpoint: HDF5 with the datasets `weights`, `adam_m`, `adam_v` (float32, contiguous,
// neither chunked nor compressed) and the root attributes slice_begin, slice_end, flat_size.
//
// Thread-safe. The HDF5 library need not be, and is called under one lock of the process
// (models/hdf5_lock.h): a writer holds it while a file is laid out in memory, not while the disk is written.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

namespace orrery {

/// This rank's part [begin, end) of the three flat buffers; each span has end - begin elements.
struct CheckpointSlice {
  int64_t begin = 0, end = 0;
  std::span<const float> weights, adam_m, adam_v;
};

/// What was written.
struct SliceFile {
  int64_t bytes = 0;
  std::string sha256;
};

/// Writes and fsyncs the file. On failure (a full disk too) removes it and throws an Error. Beside the slice
/// it takes no memory to speak of.
SliceFile write_slice_file(const std::filesystem::path& path, int64_t flat_size,
                           const CheckpointSlice& slice);

/// Reads elements [begin, end) of the flat buffers, which must lie in the file's slice [slice_begin,
/// slice_end). An empty span skips that dataset. The file's digest must have been checked: HDF5 does not
/// promise to survive hostile bytes.
void read_slice_file(const std::filesystem::path& path, int64_t slice_begin, int64_t slice_end,
                     int64_t flat_size, int64_t begin, int64_t end, std::array<std::span<float>, 3> out);

}  // namespace orrery
