// Whether the files of a config are there and fit: `orrery config --files`.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::experiments {

/// Reads what a training run would before its first step, but for the weights, of which
/// only the headers are read: the model's folder, the chat template, data and text
/// files with every prompt measured, the folder of trainer.resume and, of data.env
/// external, the program's first word. Held-out files are read whether or not the run
/// validates. Makes nothing and touches no run folder.
///
/// Lines of text for a person: what was found. Otherwise the Error that training would
/// end with. REQUIRES: check_config passed.
std::string describe_files(const proto::Config& config);

}  // namespace orrery::experiments
