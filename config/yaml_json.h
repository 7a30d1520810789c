// Turns YAML values of any kind into JSON, for keys whose values the schema does not
// know.
#pragma once

#include <yaml-cpp/yaml.h>

#include <string>

namespace orrery::config {

/// Returns a value as JSON text on one line, which is YAML as well. The value is true
/// or false, a whole number, a number, null, a text (any other word, and everything in
/// quotes), or a list or mapping of such values. Throws a usage Error that names
/// `where` and `key` for tags, for keys that are not plain words, and for what is too
/// large.
std::string yaml_as_json(const YAML::Node& node, const std::string& key, const std::string& where);

}  // namespace orrery::config
