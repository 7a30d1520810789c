// Helpers for plain text.
#pragma once

#include <string_view>

namespace orrery::actors {

/// Returns `text` without the white space at both ends.
std::string_view strip(std::string_view text);

}  // namespace orrery::actors
