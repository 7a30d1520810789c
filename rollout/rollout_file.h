// Samples in an HDF5 file, readable with h5py: those that an RL step learned from (in
// the run folder, rollouts/step_000123.h5), or those of a validation
// (rollouts/val_step_000123.h5). A file holds S samples in the order of (group,
// sample), G groups, and K names in reward_extra.
//
// Attributes of the root group (one string is a scalar, several are an array):
//   format              string   "orrery-rollouts"
//   format_version      uint32   3
//   step                uint64   the step of the file: SFT and RL steps done
//   stage_step          uint64   RL steps done (1)
//   stage               string   "grpo", or "val" for held-out prompts under the
//                                weights of `step`; optional
//   fingerprint         strings  numerics class and its version, "f32-chain/1", one for
//                                each that occurs (with a device)
//   device              strings  "cpu": the device of each fingerprint's samples, which
//                                nothing compares; optional
//   reward_extra_names  strings  K of them; absent when K is 0
//   drawn               string   a JSON object: seed, temperature, top_k, top_p, min_p,
//                                weight_version and weights (rollout/draw_record.h), by
//                                which all samples were drawn; optional
// Datasets:
//   group               int64    [S]      which prompt
//   prompt_tokens       int32    [sum]    the prompts, one after the other
//   prompt_offsets      int64    [G + 1]  prompt g has entries [prompt_offsets[g],
//                                         prompt_offsets[g + 1]) of prompt_tokens
//   prompt_index        uint64   [S]      global index of the prompt in the data order
//   sample_index        uint32   [S]      rises within a group; groups differ in size
//                                         where samples were dropped
//   request_step        uint64   [S]      RL steps done when the sample was requested
//   token_offsets       int64    [S + 1]  sample s has entries [token_offsets[s],
//                                         token_offsets[s + 1]) of the next five
//   tokens              int32    [sum]    the responses
//   logprobs            float32  [sum]
//   entropies           float32  [sum]
//   loss_mask           uint8    [sum]
//   weight_versions     uint64   [sum]
//   rewards             float32  [S]
//   reward_extra        float64  [S, K]   NaN: the sample has no such part; absent when
//                                         K is 0
//   finish_reason       int8     [S]      its attribute `names` has a string for each
//                                         value: stop, length, abort
//   fingerprint_index   uint8    [S]      which string of the attribute `fingerprint`
//   response_text       UTF-8    [S]      for people (2)
//   data_source         UTF-8    [S]      (2)
// Since format 2, and optional for a reader:
//   truth               UTF-8    [S]      the right answer as the data row has it;
//                                         empty: none
//   data_file           UTF-8    [S]      the file of the data row; empty: none
//   data_row            uint64   [S]      the row's line, from 1; 0: none
//   prompt_text         UTF-8    [G]      prompt_tokens as text, with special tokens;
//                                         absent: not known
//   dropped             uint32   [G]      samples that the group lacks because their
//                                         environment failed
// (1) Absent in files of older programs, where `step` has this meaning.
// (2) Variable-length strings, in which a NUL becomes U+FFFD.
//
// Format 1 has none of the last five and no `stage`. Formats 1 and 2 have no `device`,
// and fingerprints are "backend/kernel_version/compute_dtype": the device, the version,
// and f32 for the class f32-chain or bf16 for bf16-storage, a class of older programs
// that equals none of today's. A reader takes 1 to 3, passes over attributes and
// datasets that are not listed here, and treats optional ones that are absent as
// absent. So an addition needs no new format number.
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

#include "rollout/draw_record.h"
#include "rollout/trajectory.h"

namespace orrery::rollout {

// The values of RolloutFile::stage, as metrics.jsonl has them too.
inline constexpr const char* kRlStage = "grpo";
inline constexpr const char* kValidationStage = "val";

struct RolloutFile {
  uint64_t step = 0;
  uint64_t stage_step = 0;  ///< RL steps; of an older file, its step, which counted only those
  std::string stage = kRlStage;
  std::vector<Group> groups;
  std::vector<std::string> prompt_texts;  ///< of each group; empty: the file has none
  std::optional<DrawRecord> drawn;        ///< none: the file does not say
};

/// What a file says besides its samples.
struct RolloutNotes {
  std::string stage = kRlStage;
  std::span<const std::string> prompt_texts;  ///< of each group; empty: not known
  std::optional<DrawRecord> drawn{};
};

/// Writes `path` whole or not at all (a temporary file, then a rename). The samples of
/// a group share their prompt; a group without samples is left out. Without stage_step
/// the file is like an older program's. Error when vectors of a sample differ in length
/// or the file cannot be written.
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
  /// A child process reads the file first, because the HDF5 library crashes on some
  /// damaged files; when the child fails, it is an Error here. Only for a process of
  /// one thread.
  kReadInChildFirst
};

/// Reads a file after checking path.sha256. Throws an Error that names path and dataset
/// when something that is required is absent, of another type, or inconsistent, and
/// when the file is of a newer format. A group's step is that of its first sample.
RolloutFile read_rollout_file(const std::filesystem::path& path,
                              MissingChecksum missing = MissingChecksum::kError);

}  // namespace orrery::rollout
