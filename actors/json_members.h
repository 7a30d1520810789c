// Splits a JSON object into the texts of its members. No number is rounded, no key is
// moved, and nesting, however deep, costs neither memory nor stack.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace orrery::actors {

struct JsonMember {
  std::string key;         ///< decoded
  std::string_view value;  ///< the text in the line, without white space around it
};

/// Returns the members of the object that `line` is, in order, equal keys included, as
/// views into `line`. Throws an Error that says no more than "is not valid JSON" or "is
/// not a JSON object".
std::vector<JsonMember> json_members(std::string_view line);

/// Returns the last member of that name, which is the one that parsers keep; null when
/// there is none.
const JsonMember* find_member(const std::vector<JsonMember>& members, std::string_view key);

/// Returns `text` without the white space around it and the byte order mark before it.
std::string_view json_trimmed(std::string_view text);

}  // namespace orrery::actors
