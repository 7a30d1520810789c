// The experiment's configuration. A YAML file and key=value overrides become a
// proto::Config, whose keys proto/config.proto describes. Reading is strict: an
// unknown, repeated, mistyped or out-of-range key is a usage Error that names file and
// line, or the command line, and says what would be right.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "core/device.h"
#include "core/dtype.h"
#include "proto/config.pb.h"

namespace orrery::config {

/// The default of sft.optim.lr, which is verl's for SFT. actor.optim.lr has 1e-6.
inline constexpr double kSftLearningRate = 1e-5;

/// Reads `path` and applies `overrides` ("actor.optim.lr=1e-5",
/// "data.val_files=[a.jsonl, b.jsonl]") in order. The result has every section, and
/// every key that has a default is set, so readers need no has_x. Only text without a
/// default (model.path, data.system_prompt) may be absent.
///
/// These paths become absolute: model.path, model.chat_template_file, data.train_files,
/// data.val_files, sft.text_files, sft.train_files, sft.val_files and a path in
/// trainer.resume. They are relative to the file's folder when the file gives them, and
/// to the current folder when the command line does. run_dir is relative to the current
/// folder; its default is runs/EXPERIMENT_NAME. In a path, ${NAME} is a variable of the
/// environment, which must be set, and a leading ~/ is the home folder.
///
/// data.prompt_template_file is read into data.prompt_template, without one newline at
/// its end, and cleared. A key that has no effect beside the others is an Error
/// (config_effect.h).
proto::Config load_config(const std::filesystem::path& path,
                          std::span<const std::string> overrides);

/// Returns the resolved config as YAML with every key; absent text is null.
/// load_config() reads an equal message from it.
std::string config_to_yaml(const proto::Config& config);

/// What the key `device` means. Usage Error for a device that this build lacks.
Device device(const proto::Config& config, LocalRank local = {});

/// The value of rollout.device that means what `device` means.
inline constexpr std::string_view kSameDevice = "same";

/// The device of ranks that only generate: what rollout.device means, likewise.
Device rollout_device(const proto::Config& config, LocalRank local = {});

/// Whether ranks that only generate compute in the learners' class of numerics, so that
/// the log-probs that they record are the learners' to the bit.
bool same_numerics(const proto::Config& config);

/// The compute type of learners, and of ranks that both learn and generate.
DType compute_dtype(const proto::Config& config);
/// The compute type of ranks that only generate.
DType rollout_compute_dtype(const proto::Config& config);

}  // namespace orrery::config
