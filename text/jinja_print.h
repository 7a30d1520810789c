// Values as text: what Python prints, and JSON in both directions. Internal to
// chat_template.h.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// Python's str() and repr(). Throw Error for what prints as an address, and for too
/// large a text.
std::string print(const Value& value);
std::string repr(const Value& value);
/// Python's repr of a float: the shortest digits that read back as the same number.
std::string print_real(double value);

/// What json.dumps writes, with transformers' settings as defaults.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// Throws Error for values that JSON does not know.
std::string to_json(const Value& value, const JsonStyle& style = {});

/// Throws Error for numbers that do not fit and for too deep a nesting.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace orrery::text::jinja
