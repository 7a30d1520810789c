// Decides whether a run may go on from a checkpoint, by what the two have in common.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "proto/config.pb.h"
#include "storage/manifest.h"

namespace orrery::experiments {

/// A checkpoint, and the run that is to go on from it.
struct ResumeRequest {
  const storage::CheckpointInfo& saved;
  std::string checkpoint;  ///< its path, for messages
  bool own;                ///< it is in this run's folder; otherwise trainer.resume names it
  const proto::Config& config;
  std::string config_yaml;                       ///< the same config, resolved
  std::span<const storage::InputDigest> inputs;  ///< this run's inputs
  bool same_model_config;                        ///< both read the same from config.json
  std::string numerics;  ///< what this run's learners compute in, "f32-chain/1"
};

struct ResumeDecision {
  std::vector<std::string> warnings;  ///< for rank 0 to log
  bool keep_scores = true;            ///< earlier held-out scores come from the same measurement
  bool older_program = false;         ///< the checkpoint was saved before `inputs` were recorded
};

/// Throws a usage Error that names the keys and files when the run's own folder holds
/// another experiment (docs/resume.md), or when nothing is left to do of what the
/// config asks for. Any experiment may begin from another folder's checkpoint; the
/// decision's warnings then say how the two differ.
ResumeDecision check_resume(const ResumeRequest& request);

/// Checks a run folder without checkpoints: throws a usage Error when it holds metrics
/// or rollouts of another experiment.
void check_run_folder(const std::string& run_dir, const std::string& config_yaml);

}  // namespace orrery::experiments
