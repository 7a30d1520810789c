// Finds keys that one object of a JSON text gives twice. Parsers keep one of the two
// values and say nothing, so a run would learn from a row that nobody meant.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace orrery {

/// The first key (as the text has it, without quotes) that an object of `text`, nested
/// ones too, gives twice. `text` must be valid JSON. Makes one pass over the bytes, at
/// any depth, and sorts the keys of an object that has many.
std::optional<std::string> duplicate_key(std::string_view text);

/// Error, "`where`: key "x" is given twice in one object", when there is one.
void refuse_duplicate_keys(std::string_view text, const std::string& where);

}  // namespace orrery
