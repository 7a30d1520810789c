// What data.external says, checked with the rest of the data section.
#pragma once

#include <string>

#include "proto/config.pb.h"

namespace orrery::config {

/// "gsm8k", as a config has it.
std::string env_name(const proto::DataSection& data);

/// Usage Error when data.env external has no command to run, or another environment has
/// keys of it.
void check_external(const proto::DataSection& data);

}  // namespace orrery::config
