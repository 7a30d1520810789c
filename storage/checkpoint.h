// Checkpoints: one folder per step, with one HDF5 file per saving rank and a manifest
// of sizes and digests, published by a rename.
//
//   RUN/checkpoints/step_000123/
//     manifest.json
//     manifest.sha256
//     rank_0000_of_0004.h5 ...
//     tokenizer/...
//
// Saving on N ranks (nothing here knows MPI, so the caller provides the barriers):
//   1. Rank 0 makes an empty folder "step_000123.tmp-save":
//        tmp = prepare_checkpoint(folder, step)
//   2. Each rank writes its file, and sends the entry to rank 0:
//        entry = write_checkpoint_part(tmp, rank, N, parts)
//   3. Rank 0 publishes the folder:
//        publish_checkpoint(tmp, folder / checkpoint_name(step), info, modules,
//                           entries, tokenizer_folder)
// Functions that take a PieceRunner hash and write in pieces, which may give way to
// other work.
//
// A failure anywhere (a full disk, a kill) leaves every earlier checkpoint whole, and
// at most a *.tmp-* folder, which readers ignore and remove_old_checkpoints() removes.
//
// A reader trusts nothing before its SHA-256 agrees. Numbers are addressed by module,
// tensor and slice, so a checkpoint loads on any number of ranks, however they lay out
// their memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/low_priority_worker.h"
#include "storage/checkpoint_file.h"
#include "storage/manifest.h"

namespace orrery::storage {

/// "step_000123"
std::string checkpoint_name(int64_t step);

/// Creates the empty temporary folder of a save (and `folder` where it is missing).
/// Removes what killed or failed saves left in `folder`, so only one save may be under
/// way.
std::filesystem::path prepare_checkpoint(const std::filesystem::path& folder, int64_t step);

/// Writes this rank's file, a part of each module that it has something of, into the
/// temporary folder and returns its manifest entry. Ranks may call at the same time.
CheckpointFileEntry write_checkpoint_part(const std::filesystem::path& temporary, int64_t rank,
                                          int64_t ranks, std::span<const ModulePart> parts,
                                          const PieceRunner& run_piece = run_inline);

/// Makes the folder, which has the ranks' files, a whole and durable checkpoint: copies
/// the tokenizer's files (from a Hugging Face folder; empty path: none) and writes the
/// manifest. `modules` are all that are saved, the policy (info.model_config_json's)
/// among them, and `entries` those of all ranks, in rank order. A chat template that is
/// not empty takes the place of the copied ones, as chat_template.jinja.
void complete_checkpoint(const std::filesystem::path& folder, const CheckpointInfo& info,
                         std::span<const StoredModule> modules,
                         const std::vector<CheckpointFileEntry>& entries,
                         const std::filesystem::path& tokenizer_source,
                         const std::string& chat_template = {});

/// Completes the checkpoint and renames the folder. An existing checkpoint at `target`
/// is replaced in one exchange.
void publish_checkpoint(const std::filesystem::path& temporary, const std::filesystem::path& target,
                        const CheckpointInfo& info, std::span<const StoredModule> modules,
                        const std::vector<CheckpointFileEntry>& entries,
                        const std::filesystem::path& tokenizer_source,
                        const std::string& chat_template = {});

/// An opened checkpoint. Const calls are thread-safe, except the first read() of a
/// checkpoint opened with kOnRead.
class Checkpoint {
 public:
  enum class Verify {
    /// Hash every file when opening, and check that each rank's file holds what the
    /// manifest says.
    kAll,
    /// Hash each rank's file before its first read. Meant for ranks that need a part of
    /// what rank 0 has verified.
    kOnRead
  };
  /// Error naming the file and the reason when anything is missing, damaged or not
  /// understood.
  explicit Checkpoint(const std::filesystem::path& folder, Verify verify = Verify::kAll,
                      const PieceRunner& run_piece = run_inline);

  const std::filesystem::path& folder() const { return folder_; }
  const CheckpointInfo& info() const { return manifest_.info; }
  const Manifest& manifest() const { return manifest_; }
  const models::ModelConfig& config() const { return manifest_.config; }
  /// The policy's table, which is in memory alone: the checkpoint has the tensors, in
  /// this order, and not their places.
  const models::ParameterTable& table() const { return table_; }
  std::span<const StoredModule> modules() const { return manifest_.modules; }
  /// Error for an unknown module, which lists those that there are.
  const StoredModule& module(std::string_view name) const;
  int64_t saving_ranks() const { return std::ssize(manifest_.rank_files); }
  int64_t bytes() const;  ///< of all files listed
  /// Where tokenizer.json and its companions are; empty when the checkpoint has none.
  std::filesystem::path tokenizer_folder() const;

  /// Reads these slices of a module's tensors (`tensor`: index in its list of tensors)
  /// into their places of each span. Everything else of the spans becomes zero, as the
  /// gaps of a flat buffer are. An empty span skips its kind. REQUIRES: the places rise
  /// and do not overlap, and a module that is not trainable is asked for weights alone.
  void read(std::string_view module, std::span<const models::HeldSlice> wanted,
            std::span<float> weights, std::span<float> adam_m = {},
            std::span<float> adam_v = {}) const;

 private:
  std::filesystem::path folder_;
  Manifest manifest_;
  models::ParameterTable table_;
  mutable std::vector<bool> verified_;  // by rank's file
};

/// What one line of `orrery ckpt ls` shows.
struct CheckpointSummary {
  std::filesystem::path folder;
  int64_t step = 0;  ///< by the folder's name
  int64_t bytes = 0;
  int64_t saving_ranks = 0;
  CheckpointInfo info;
  /// Empty when the manifest and the sizes are right; digests are not computed.
  std::string problem;
};

/// All step_* folders in the order of steps; empty when `folder` does not exist.
std::vector<CheckpointSummary> list_checkpoints(const std::filesystem::path& folder);

/// Called for each checkpoint that is passed over, with the reason.
using RejectedCheckpoint =
    std::function<void(const std::filesystem::path& folder, const std::string& reason)>;

/// The newest checkpoint that opens with Verify::kAll and whose step is its folder's,
/// or nothing. Where none does and some are of the version before (OldFormat), the
/// newest one's error says it for all.
std::optional<Checkpoint> latest_good_checkpoint(const std::filesystem::path& folder,
                                                 const RejectedCheckpoint& rejected,
                                                 const PieceRunner& run_piece = run_inline);

/// Keeps the `keep` newest good checkpoints (0: all), and removes the good ones before
/// them and all *.tmp-* folders. A checkpoint that is not good (torn, damaged, of
/// another step) does not count and is never removed: only its owner knows what it may
/// still be worth. `verified` holds the checkpoints that this function has found good
/// before; it opens none of them again. Must not be called while a save is under way in
/// the folder.
void remove_old_checkpoints(const std::filesystem::path& folder, int64_t keep,
                            std::set<std::filesystem::path>* verified = nullptr,
                            const PieceRunner& run_piece = run_inline);

/// SHA-256 over step, weights and moments of a module (the policy's by default), tensor
/// by tensor in the order of the module's list: independent of how many ranks saved, of
/// the time and of the run's configuration. docs/formats.md has the definition.
std::string checkpoint_hash(const Checkpoint& checkpoint,
                            std::string_view module = models::kPolicy.name);

/// The digest of a module whose numbers read() gives: of one kind, the elements of the
/// tensor of this index. They must stay until the next call.
using ReadElements =
    std::function<std::span<const float>(int64_t kind, int64_t tensor, const Extent& elements)>;
std::string checkpoint_hash(int64_t step, const StoredModule& module, const ReadElements& read);

/// The policy's digest, of buffers in memory (flat_size elements each).
std::string checkpoint_hash(int64_t step, const models::ParameterTable& table,
                            std::span<const float> weights, std::span<const float> adam_m,
                            std::span<const float> adam_v);

}  // namespace orrery::storage
