// A JSON object by the text of its members: no number is rounded, no key moved, and no
// nesting, however deep, costs memory or stack.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace orrery::actors {

struct JsonMember {
  std::string key;         ///< decoded
  std::string_view value;  ///< as it stands in the line, without white space around
};

/// The members of the object that `line` is, in order, equal keys included. Views into
/// `line`. Error ("is not valid JSON", "is not a JSON object") that says no more.
std::vector<JsonMember> json_members(std::string_view line);

/// The last member of that name, as parsers have it; null where there is none.
const JsonMember* find_member(const std::vector<JsonMember>& members, std::string_view key);

/// Without white space around and a byte order mark before it.
std::string_view json_trimmed(std::string_view text);

}  // namespace orrery::actors
