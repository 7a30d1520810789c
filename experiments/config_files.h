// Checks that the files of a config exist and fit: `orrery config --files`.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::experiments {

/// Reads what a training run would read before its first step: the model's folder, the
/// chat template, data and text files with every prompt measured, the folder of
/// trainer.resume and, for data.env external, the first word of the program's command.
/// Of the weights only the headers are read. Held-out files are read whether or not the
/// run validates. Nothing is created, and no run folder is touched.
///
/// Returns lines of text for a person that say what was found, or throws the Error that
/// training would end with. REQUIRES: check_config passed.
std::string describe_files(const proto::Config& config);

}  // namespace orrery::experiments
