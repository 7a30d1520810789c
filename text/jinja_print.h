// Values as text: what Python prints, and JSON in both directions. Internal to
// chat_template.h.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// Python's str() and repr(). Both throw Error for a value that Python prints as an
/// address, and for too large a text.
std::string print(const Value& value);
std::string repr(const Value& value);
/// Python's repr of a float: the shortest digits that read back as the same number.
std::string print_real(double value);

/// The settings of json.dumps. The defaults are those of transformers.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool has_indent = false;
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
/// The value as json.dumps writes it. Throws Error for a value that JSON does not have.
std::string to_json(const Value& value, const JsonStyle& style = {});

/// Throws Error for a number that does not fit and for JSON that is nested too deep.
Value from_json(const nlohmann::ordered_json& json);

}  // namespace orrery::text::jinja
