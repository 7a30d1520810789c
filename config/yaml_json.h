// YAML values of any kind as JSON, for keys whose values the schema does not know.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

namespace orrery::config {

/// A value as JSON text on one line, which is YAML as well: true and false, whole
/// numbers, numbers, null; any other word and everything in quotes is a text; lists and
/// mappings of these. Usage Error naming `where` and `key` for tags, keys that are no
/// words, and what is too large.
std::string yaml_as_json(const YAML::Node& node, const std::string& key, const std::string& where);

}  // namespace orrery::config
