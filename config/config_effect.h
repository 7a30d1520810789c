// Keys that have no effect beside the others of their config: set by someone who
// believes that they do.
#pragma once

#include "config/yaml_to_proto.h"
#include "proto/config.pb.h"

namespace orrery::config {

/// Usage Error naming the first key that was set to something else than its default and
/// changes nothing, and the key that would make it count. A value that is the default
/// never errs, so that a resolved config, which has every key, reads back.
///
/// Where the deciding key is a switch and was set as well, the part is off on purpose
/// (sft.total_training_steps: 0 above an sft section) and nothing is said; but a key of
/// the command line needs its switch there, too, if the file's is off. When the command
/// line chooses another data.env than the file was written for, the file's section of
/// the other environment is put back to its defaults: the resolved config says what
/// counts.
///
/// `config`: what `reader` has filled, with all defaults.
void check_effect(proto::Config& config, const ConfigReader& reader);

}  // namespace orrery::config
