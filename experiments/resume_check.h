// Whether a run may go on from a checkpoint: what the two have in common, and what not.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// A checkpoint, and the run that is to go on from it.
struct ResumeQuestion {
  const storage::CheckpointInfo& saved;
  std::string checkpoint;  ///< its path, for messages
  bool own;                ///< it is of this run's folder; otherwise trainer.resume names it
  const proto::Config& config;
  std::string config_yaml;                       ///< the same, resolved
  std::span<const storage::InputDigest> inputs;  ///< of this run
  bool same_model_config;                        ///< config.json says the same to us
};

struct ResumeAnswer {
  std::vector<std::string> warnings;  ///< for rank 0 to tell
  bool keep_scores = true;            ///< held-out scores so far are of the same measurement
  bool older_program = false;         ///< the checkpoint was saved before `inputs` were noted
};

/// A usage Error that names the keys and files when the run's own folder holds another
/// experiment (docs/resume.md), or when nothing is left to be done of what the config
/// asks for. From another folder's checkpoint any experiment may begin; how it differs
/// is told.
ResumeAnswer check_resume(const ResumeQuestion& question);

/// For a run folder without checkpoints: a usage Error when it holds metrics or
/// rollouts of another experiment.
void check_run_folder(const std::string& run_dir, const std::string& config_yaml);

}  // namespace orrery::experiments
