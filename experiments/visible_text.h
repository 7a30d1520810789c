// Shows the text of a model or a file on a terminal: all of it can be seen, and none of
// it steers the terminal.
#pragma once

#include <string>
#include <string_view>

namespace orrery::experiments {

/// Returns `text` with \r, \x1b, \u202e and the like in place of control characters and
/// invisible ones, and \xff in place of bytes that are not UTF-8. New lines and tabs
/// stay. Each line but the first begins with `indent` spaces.
std::string visible_text(std::string_view text, size_t indent = 0);

}  // namespace orrery::experiments
