// Samples in an HDF5 file, readable with h5py: those that an RL step learned from (run
// folder: rollouts/step_000123.h5), or those of a validation
// (rollouts/val_step_000123.h5).
// S samples in order of (group, sample), G groups, K names in reward_extra.
//
// Attributes of the root group (several strings are an array, one is a scalar)
//   format              string "orrery-rollouts"
//   format_version      uint32, 2
//   step                uint64, the step the file was written for: SFT and RL steps done
//   stage_step          uint64, RL steps done; absent in files of older programs, whose `step` it is
//   (optional) stage               string "grpo", or "val": held-out prompts under the weights of `step`
//   (optional) fingerprint         "backend/kernel_version/compute_dtype", one string for each that occurs
//   reward_extra_names  K strings; absent when K is 0
// Datasets
//   group               int64   [S]      which prompt
//   prompt_tokens       int32   [sum]    prompts, one after the other
//   prompt_offsets      int64   [G + 1]  prompt g is prompt_tokens[prompt_offsets[g] : prompt_offsets[g + 1]]
//   prompt_index        uint64  [S]      global index of the prompt in the data order
//   sample_index        uint32  [S]      rises within a group; groups differ in size where samples were
//   dropped request_step        uint64  [S]      RL steps done when the sample was requested token_offsets
//   int64   [S + 1]  sample s has entries token_offsets[s] : token_offsets[s + 1] tokens              int32
//   [sum]    response; so are the next four logprobs            float32 [sum] entropies           float32
//   [sum] loss_mask           uint8   [sum] weight_versions     uint64  [sum] rewards             float32 [S]
//   reward_extra        float64 [S, K]   NaN: the sample has no such part; absent when K is 0
//   finish_reason       int8    [S]      attribute `names`: strings, by value: stop, length, abort
//   fingerprint_index   uint8   [S]      which of the attribute `fingerprint`
//   response_text       UTF-8   [S]      variable-length strings, for people: a NUL becomes U+FFFD; so are
//   the next data_source         UTF-8   [S]
// Since format 2, optional for a reader
//   truth               UTF-8   [S]      the right answer as the data row has it; empty: none
//   data_file           UTF-8   [S]      the file of the data row; empty: none
//   data_row            uint64  [S]      its line, from 1; 0: none
//   prompt_text         UTF-8   [G]      prompt_tokens as text, special tokens included; absent: not known
//   dropped             uint32  [G]      samples of the group that are missing, as their environment failed
//
// Format 1 has none of the last five and no `stage`. A reader takes 1 and 2, passes
// over attributes and datasets that are not listed here, and treats optional ones that
// are absent as absent; so what is only added needs no new number.
//
// Thread-safe: the HDF5 library is called under the process's one lock
// (storage/hdf5_lock.h).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "rollout/trajectory.h"

namespace orrery::rollout {

// What RolloutFile::stage says, the words of metrics.jsonl.
inline constexpr const char* kRlStage = "grpo";
inline constexpr const char* kValidationStage = "val";

struct RolloutFile {
  uint64_t step = 0;
  uint64_t stage_step = 0;  ///< RL steps; an older file's step, which counted those alone
  std::string stage = kRlStage;
  std::vector<Group> groups;
  std::vector<std::string> prompt_texts;  ///< of each group; empty: the file has none
};

/// What a file says beside its samples.
struct RolloutNotes {
  std::string stage = kRlStage;
  std::span<const std::string> prompt_texts;  ///< of each group; empty: not known
};

/// Writes `path` whole or not at all (a temporary file, then rename). The samples of a
/// group share their prompt; a group without samples is left out. Without stage_step
/// the file is as an older program's. Error when arrays of a sample differ in length or
/// the file cannot be written.
void write_rollout_file(const std::filesystem::path& path, uint64_t step,
                        std::span<const Group> groups,
                        std::optional<uint64_t> stage_step = std::nullopt,
                        const RolloutNotes& notes = {});

/// Writes path.sha256 (a line that `sha256sum -c` reads). write_rollout_file does so.
void write_rollout_checksum(const std::filesystem::path& path);

/// path.sha256
std::filesystem::path rollout_checksum_path(std::filesystem::path path);

/// What to do with a file whose path.sha256 is not there.
enum class MissingChecksum {
  kError,
  /// The HDF5 library crashes on some damaged files: a child process reads this one
  /// first, and when that fails it is an Error here. For a process of one thread.
  kReadInChildFirst
};

/// Reads after checking path.sha256. Error naming path and dataset when something that
/// is required is absent, of another type, or inconsistent, and when the file is of a
/// newer format. A group's step is that of its first sample.
RolloutFile read_rollout_file(const std::filesystem::path& path,
                              MissingChecksum missing = MissingChecksum::kError);

}  // namespace orrery::rollout
