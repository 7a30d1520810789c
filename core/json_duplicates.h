// Keys that one object of a JSON text gives twice. Parsers keep one of the two values
// and say nothing, so that a row would be learned from that nobody meant.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace orrery {

/// The first key (as the text has it, without quotes) that an object of `text`, nested
/// ones too, gives twice. `text` must be valid JSON. One pass over the bytes, at any
/// depth; the keys of an object are sorted where there are many.
std::optional<std::string> duplicate_key(std::string_view text);

/// Error, "`where`: key "x" is given twice in one object", when there is one.
void refuse_duplicate_keys(std::string_view text, const std::string& where);

}  // namespace orrery
