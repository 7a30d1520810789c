// Runs a parsed chat template. Internal to chat_template.h.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/jinja_parser.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// The text the template prints with these variables. Scopes, truth and errors are
/// Jinja's (with undefined values that print as nothing and fail when used further).
/// Throws Error for what the template raises, for wrong kinds, for what is not
/// supported, and when a run takes more steps than any honest template.
std::string run_template(const Statement& root,
                         std::vector<std::pair<std::string, Value>> variables);

}  // namespace orrery::text::jinja
