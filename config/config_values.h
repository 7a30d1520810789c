// A resolved config as the list of its keys and their values' text: for comparing one
// config with another.
#pragma once

#include <map>
#include <string>

namespace orrery::config {

/// "section.key" -> the value as YAML, of what config_to_yaml writes (a line for each
/// key).
std::map<std::string, std::string> config_values(const std::string& yaml);

}  // namespace orrery::config
