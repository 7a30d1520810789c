// What the subcommands of `orrery ckpt` do, and what they share. Each action prints its
// result, as JSON with options.json. Throws Error.
#pragma once

#include <filesystem>
#include <string>

#include "storage/checkpoint.h"

namespace orrery::tools {

struct CkptOptions {
  std::string path;   ///< a checkpoint or run folder; of an import, the model's folder
  std::string other;  ///< the second checkpoint of a comparison, or the folder to create
  std::string format = "hf", dtype = "f32";
  std::string module = models::kPolicy.name;
  bool json = false;
};

// ckpt_inspect.cc
void ckpt_list(const CkptOptions& options);
void ckpt_show(const CkptOptions& options);
void ckpt_verify(const CkptOptions& options);
void ckpt_hash(const CkptOptions& options);
// ckpt_diff.cc
void ckpt_diff(const CkptOptions& options);
// ckpt_convert.cc
void ckpt_convert(const CkptOptions& options);
// ckpt_hf.cc
void ckpt_export(const CkptOptions& options);
void ckpt_import(const CkptOptions& options);

/// The folder of step_* folders that a run folder (or that folder itself) means.
std::filesystem::path checkpoints_of(const std::filesystem::path& path);
/// Whether the folder is, or by its name would be, a checkpoint.
bool is_checkpoint(const std::filesystem::path& path);
/// Opens a checkpoint folder, or the newest good one of a run folder, saying which ones
/// it passed over.
storage::Checkpoint open_good(const std::filesystem::path& path);

}  // namespace orrery::tools
