// Checkpoints of format version 2, which older programs wrote: read here to be
// converted, and nowhere else.
//
// Version 2 had the policy alone, in one flat float32 buffer: tensor after tensor, with
// gaps. A rank's file held some extents of three such buffers (datasets `weights`,
// `adam_m`, `adam_v` in the root group), one after the other. manifest.json had
// `flat_size`, `extents` for each file, and `tensors` with the offset of each tensor in
// the buffer, in place of `modules` and `slices`.
#pragma once

#include <filesystem>

#include "storage/checkpoint.h"

namespace orrery::storage {

/// Writes the checkpoint `from`, of version 2, as `to`, which appears whole, by a
/// rename. Each rank's file becomes one. Every number keeps its bits, so the hash
/// stays, and what the manifest says of the run stays too. `from` is not changed. What
/// is written is read again and compared. Takes memory for the numbers of one rank's
/// file, and a third of that. Error when `from` is not a good checkpoint of version 2,
/// or when `to` exists.
void convert_checkpoint_v2(const std::filesystem::path& from, const std::filesystem::path& to);

/// The format version that the manifest states; its digest must be right.
int64_t checkpoint_version(const std::filesystem::path& folder);

}  // namespace orrery::storage
