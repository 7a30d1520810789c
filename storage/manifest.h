// manifest.json of a checkpoint: what was saved, when, and the size and SHA-256 of
// every other file. manifest.sha256 beside it (a line that `sha256sum -c` reads) covers
// the manifest itself. docs/formats.md lists the fields.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/low_priority_worker.h"
#include "models/config.h"
#include "storage/checkpoint_contents.h"
#include "storage/train_state.h"

namespace orrery::storage {

/// An input of a run, identified by a digest of its contents.
struct InputDigest {
  std::string key;     ///< of the config: "data.train_files", "model.path"
  std::string name;    ///< a data file's path; in a model folder a file's name, or "weights"
  std::string digest;  ///< "sha256:...", or "sums:..." of weights in memory

  bool operator==(const InputDigest&) const = default;
};

/// What a run needs to find again, besides the numbers.
struct CheckpointInfo {
  int64_t step = 0;
  std::string stage;                ///< "sft", "grpo", "import" (kImportStage)
  std::string run_config_yaml;      ///< the resolved configuration
  std::string model_config_json;    ///< text of the policy's config.json
  std::optional<TrainState> state;  ///< at `step`; none for an imported model, of step 0
  std::optional<double> reward;     ///< mean reward of the step
  int64_t unix_time = 0;            ///< seconds; 0 when saving means now
  /// What the run read. None when the checkpoint is an import, or older than this
  /// field.
  std::optional<std::vector<InputDigest>> inputs;
  /// What the learners computed in, "f32-chain/1" (rollout/fingerprint.h), and on which
  /// device, which nothing compares. None when the checkpoint is an import, or older
  /// than these fields.
  std::optional<std::string> numerics, device;
};

struct Manifest {
  CheckpointInfo info;
  std::vector<StoredModule> modules;  ///< the policy is one of them
  /// The files are in rank order; together they hold each element of every tensor once.
  std::vector<CheckpointFileEntry> rank_files;
  std::vector<CheckpointFileEntry> tokenizer;  ///< "tokenizer/..."
  models::ModelConfig config;                  ///< parsed from info.model_config_json
};

inline constexpr const char* kManifestFormat = "orrery-checkpoint";
inline constexpr int64_t kFormatVersion = 3;     ///< what is written and read
inline constexpr int64_t kConvertedVersion = 2;  ///< what storage/checkpoint_v2.h reads

/// A checkpoint of kConvertedVersion. The text has the command that converts it, or the
/// run that it is of; a usage error, since to try again would not help.
struct OldFormat : Error {
  explicit OldFormat(const std::string& message) : Error(message, kExitUsage) {}
};
inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kManifestHashFile = "manifest.sha256";
inline constexpr const char* kTokenizerFolder = "tokenizer";
inline constexpr const char* kImportStage = "import";

/// "rank_0000_of_0004.h5"
std::string rank_file_name(int64_t rank, int64_t ranks);

/// The entry of an existing file: name, size and digest.
CheckpointFileEntry describe_file(const std::filesystem::path& folder, const std::string& name,
                                  const PieceRunner& run_piece = run_inline);

/// Throws Error unless the file has the entry's size and digest.
void verify_file(const std::filesystem::path& folder, const CheckpointFileEntry& entry,
                 const PieceRunner& run_piece = run_inline);

/// The entry of a rank's file as text, for another rank of the same program.
std::string entry_text(const CheckpointFileEntry& entry);
CheckpointFileEntry entry_from_text(const std::string& text);

/// Writes manifest.json and manifest.sha256, durably, into the folder. Checks that the
/// slices cover the modules, that the policy is the one of the model's config, and that
/// stage, step and state belong together. `manifest.config` is not used.
void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

/// Reads the manifest after checking its own digest. Checks every field, that the
/// policy has the tensors that this program makes of the model's config, and that the
/// files have the stated sizes. It does not check the files' digests (verify_file does)
/// nor what they themselves say (check_rank_file does). Another version is an Error
/// that says what can be read (OldFormat where it can be converted).
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace orrery::storage
