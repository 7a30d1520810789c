// Finds keys that have no effect beside the others of their config, although whoever
// set them believes that they do.
#pragma once

#include "config/yaml_to_proto.h"
#include "proto/config.pb.h"

namespace orrery::config {

/// Throws a usage Error that names the first key which was set to something else than
/// its default and changes nothing, and the key that would make it count. The default
/// itself is never an Error, so that a resolved config, which has every key, can be
/// read back.
///
/// If the deciding key is a switch and was set as well, that part is off on purpose
/// (sft.total_training_steps: 0 above an sft section), and there is no Error. But a key
/// that the command line sets needs its switch there, too, if the file's is off. When
/// the command line chooses another data.env than the file was written for, the file's
/// section of the other environment gets its defaults back, so that the resolved config
/// shows only what counts.
///
/// `config` is what `reader` has filled, with all defaults.
void check_effect(proto::Config& config, const ConfigReader& reader);

}  // namespace orrery::config
