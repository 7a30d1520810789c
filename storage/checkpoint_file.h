// One rank's file of a checkpoint: HDF5, with a dataset /<module>/<kind>/<tensor> for
// each tensor that the rank holds something of and each kind of numbers (float32,
// contiguous, neither chunked nor compressed). It holds the rank's slices of the tensor
// one after the other. Its attributes are `shape`, the whole tensor's; `slices`, int64
// [k, 2], begin and end of each; and `dtype`.
//
// Thread-safe. The HDF5 library need not be: it is called under the process's one lock
// (storage/hdf5_lock.h). A writer holds the lock while a file is laid out in memory, a
// millisecond at a time, not while the disk is written.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "core/low_priority_worker.h"
#include "models/parameters.h"
#include "storage/checkpoint_contents.h"

namespace orrery::storage {

/// What a rank has of one module.
struct ModulePart {
  StoredModule module;
  /// `tensor` is an index in module.tensors; `at` is a place in each of the arrays,
  /// which may hold more than the slices. The slices of a tensor rise.
  std::vector<models::HeldSlice> slices;
  /// The arrays have one size; a module that is not trainable has no moments.
  std::span<const float> weights, adam_m, adam_v;
};

/// The slices of the parts, by name.
HeldModules held_modules(std::span<const ModulePart> parts);

/// Size and digest of a file that was written.
struct RankFile {
  int64_t bytes = 0;
  std::string sha256;
};

/// Writes, hashes and fsyncs the file, in pieces. On failure (a full disk too) removes
/// the file and throws an Error. Besides the parts it takes very little memory.
RankFile write_rank_file(const std::filesystem::path& path, std::span<const ModulePart> parts,
                         const PieceRunner& run_piece = run_inline);

/// Throws an Error unless the file agrees with its manifest: it has these slices of
/// these modules, with these shapes, as float32 values. Reads no numbers. The file's
/// digest must have been checked.
void check_rank_file(const std::filesystem::path& path, std::span<const StoredModule> modules,
                     const HeldModules& held);

/// Reads what the file holds of the slices `wanted` of a module's tensors into their
/// places of `out`, by kind; an empty span skips its kind. Touches nothing else of the
/// spans. `held` is what the file's manifest says that it has of the module. The file's
/// digest must have been checked, because HDF5 does not promise to survive hostile
/// bytes.
void read_rank_file(const std::filesystem::path& path, const StoredModule& module,
                    const HeldTensors& held, std::span<const models::HeldSlice> wanted,
                    std::array<std::span<float>, 3> out);

}  // namespace orrery::storage
