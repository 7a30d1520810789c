// Text of a model or a file on a terminal: all of it can be seen, and nothing of it
// drives the terminal.
#pragma once

#include <string>
#include <string_view>

namespace orrery::experiments {

/// `text` with \r, \x1b, \u202e and the like for control characters and invisible ones
/// (new lines and tabs stay) and \xff for bytes that are not UTF-8. Each line but the
/// first begins with `indent` spaces.
std::string visible_text(std::string_view text, size_t indent = 0);

}  // namespace orrery::experiments
