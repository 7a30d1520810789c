// The text of a config as one YAML document, and how messages speak of it. All errors
// are usage Errors that begin with `where`: "file:line" or "command line".
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstddef>
#include <string>

namespace orrery::config {

/// The most bytes of a text in a config.
inline constexpr size_t kMaxConfigText = 1 << 16;

[[noreturn]] void fail_at(const std::string& where, const std::string& message);

/// A text for a message: short, and on one line.
std::string shown(const std::string& text);

/// "file:line" of a mark in the file `name`; the name alone where there is no line.
std::string place(const std::string& name, const YAML::Mark& mark);

/// Usage Error unless `text` is UTF-8 without NUL.
void check_config_text(const std::string& text, const std::string& where);

/// The only document of a YAML text; an undefined node for an empty one. Usage Error
/// for what is not YAML, nested too deeply, or more than one document. `name` stands
/// for the file.
YAML::Node parse_yaml(const std::string& text, const std::string& name);

}  // namespace orrery::config
