// The experiment's configuration: a YAML file and key=value overrides become a
// proto::Config (proto/config.proto describes every key). Strict: an unknown, repeated,
// mistyped or out-of-range key is a usage Error that names file and line, or the
// command line, and says what would be right.
#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "core/dtype.h"
#include "proto/config.pb.h"

namespace orrery::config {

/// sft.optim.lr where it is not set (verl's for SFT); actor.optim.lr has 1e-6.
inline constexpr double kSftLearningRate = 1e-5;

/// Reads `path` and applies `overrides` ("actor.optim.lr=1e-5",
/// "data.val_files=[a.jsonl, b.jsonl]") in order. Every section of the result is
/// present and every key with a default is set, so readers need no has_x; only text
/// without a default (model.path, data.system_prompt) may be absent.
///
/// model.path, model.chat_template_file, data.train_files, data.val_files,
/// sft.text_files, sft.train_files, sft.val_files and a path in trainer.resume become
/// absolute: relative to the file's folder when written there, to the current folder
/// when given on the command line. data.prompt_template_file is read into
/// data.prompt_template, without one newline at its end, and cleared. A key that has no
/// effect beside the others is an Error (config_effect.h).
/// run_dir is relative to the current folder and, where it is not given,
/// runs/EXPERIMENT_NAME. ${NAME} in a path is the environment's variable (unset:
/// Error), a leading ~/ the home folder.
proto::Config load_config(const std::filesystem::path& path,
                          std::span<const std::string> overrides);

/// The resolved config as YAML with every key; load_config of it gives an equal
/// message. Absent text is null.
std::string config_to_yaml(const proto::Config& config);

/// Of learners, and of ranks that do both.
DType compute_dtype(const proto::Config& config);
/// Of ranks that only generate.
DType rollout_compute_dtype(const proto::Config& config);

}  // namespace orrery::config
