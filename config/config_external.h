// Checks data.external, together with the rest of the data section.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::config {

/// The word that a config has for its environment: "gsm8k".
std::string env_name(const proto::DataSection& data);

/// Throws a usage Error when data.env is external without a command to run, or when
/// data.external has keys set and data.env is another.
void check_external(const proto::DataSection& data);

}  // namespace orrery::config
