// A resolved config as a list of keys with the texts of their values, for comparing
// configs.
#pragma once

#include <map>
#include <string>

namespace orrery::config {

/// Maps "section.key" to the value as YAML. Reads what config_to_yaml() writes, which
/// has one line per key.
std::map<std::string, std::string> config_values(const std::string& yaml);

}  // namespace orrery::config
