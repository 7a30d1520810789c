// Checkpoints of format version 2, which older programs wrote: read here to be
// converted, and nowhere else.
//
// Version 2 had the policy alone, in one flat float32 buffer: tensor after tensor, with
// gaps. A rank's file held some extents of three such buffers (datasets `weights`,
// `adam_m`, `adam_v` in the root group), one after the other. manifest.json had
// `flat_size`, `extents` for each file, and `tensors` with the offset of each tensor in
// the buffer, in place of `modules` and `slices`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "storage/checkpoint.h"

namespace orrery::storage {

class CheckpointV2 {
 public:
  /// Opens the checkpoint: the manifest and the digests and structure of all files are
  /// checked. Error when it is not a good checkpoint of version 2.
  explicit CheckpointV2(const std::filesystem::path& folder);
  ~CheckpointV2();
  CheckpointV2(const CheckpointV2&) = delete;
  CheckpointV2& operator=(const CheckpointV2&) = delete;

  int64_t step() const;

  /// Writes it as `to`, of this program's version, which appears whole, by a rename.
  /// Each rank's file becomes one. Every number keeps its bits, so the hash stays, and
  /// what the manifest says of the run stays too. Before the rename the new checkpoint
  /// is verified, and its hash compared with that of the old one's numbers, which are
  /// read again. Returns the hash. Takes memory for the numbers of one rank's file.
  /// Error when `to` exists, or when anything cannot be written.
  std::string convert(const std::filesystem::path& to) const;

 private:
  struct Source;
  std::unique_ptr<const Source> source_;
};

/// The format version that the manifest states; its digest must be right.
int64_t checkpoint_version(const std::filesystem::path& folder);

}  // namespace orrery::storage
