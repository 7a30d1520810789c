// The samples of one step in an HDF5 file (run folder: rollouts/step_000123.h5), readable with h5py.
// S samples in order of (group, sample), G groups, K names in reward_extra.
//
// Attributes of the root group (several strings are an array, one is a scalar)
//   format              string "orrery-rollouts"
//   format_version      uint32, 1
//   step                uint64, the step the file was written for: SFT and RL steps done
//   stage_step          uint64, RL steps done; absent in files of older programs, whose `step` it is
//   fingerprint         "backend/kernel_version/compute_dtype", one string for each that occurs
//   reward_extra_names  K strings; absent when K is 0
// Datasets
//   group               int64   [S]      which prompt
//   prompt_tokens       int32   [sum]    prompts, one after the other
//   prompt_offsets      int64   [G + 1]  prompt g is prompt_tokens[prompt_offsets[g] : prompt_offsets[g + 1]]
//   prompt_index        uint64  [S]      global index of the prompt in the data order
//   sample_index        uint32  [S]
//   request_step        uint64  [S]      RL steps done when the sample was requested
//   token_offsets       int64   [S + 1]  sample s has entries token_offsets[s] : token_offsets[s + 1]
//   tokens              int32   [sum]    response; so are the next four
//   logprobs            float32 [sum]
//   entropies           float32 [sum]
//   loss_mask           uint8   [sum]
//   weight_versions     uint64  [sum]
//   rewards             float32 [S]
//   reward_extra        float64 [S, K]   NaN: the sample has no such part
//   finish_reason       int8    [S]      attribute `names`: strings, by value: stop, length, abort
//   fingerprint_index   uint8   [S]      which of the attribute `fingerprint`
//   response_text       UTF-8   [S]      variable-length strings, for people: a NUL becomes U+FFFD
//   data_source         UTF-8   [S]      as response_text
//
// Thread-safe: the HDF5 library is called under the process's one lock (models/hdf5_lock.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "rollout/trajectory.h"

namespace orrery {

struct RolloutFile {
  uint64_t step = 0;
  uint64_t stage_step = 0;  ///< RL steps; an older file's step, which counted those alone
  std::vector<Group> groups;
};

/// Writes `path` whole or not at all (a temporary file, then rename). The samples of a group share their
/// prompt; without stage_step the file is as an older program's. Error when arrays of a sample differ in
/// length or the file cannot be written.
void write_rollout_file(const std::filesystem::path& path, uint64_t step, std::span<const Group> groups,
                        std::optional<uint64_t> stage_step = std::nullopt);

/// Writes path.sha256 (a line that `sha256sum -c` reads). write_rollout_file does so.
void write_rollout_checksum(const std::filesystem::path& path);

/// Reads after checking path.sha256. Error naming path and dataset when something is absent, of another type,
/// or inconsistent. A group's step is that of its first sample.
RolloutFile read_rollout_file(const std::filesystem::path& path);

}  // namespace orrery
