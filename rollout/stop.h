// Stop strings in a text that arrives piece by piece.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace orrery {

/// Adds `text` to a response whose end is `tail` and says whether one of `stop_strings` (none empty) is now
/// in it, wherever it began. Keeps of the tail only what the beginning of a later match may need.
bool find_stop_string(std::string& tail, std::string_view text, std::span<const std::string> stop_strings);

}  // namespace orrery
