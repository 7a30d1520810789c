// Which names belong to which scope. Internal to chat_template.h.
//
// Jinja decides this before it runs a template: a name that a scope sets before reading
// it is that scope's own from the beginning. Where no scope around knows the name
// either, a loop or macro inside finds it undefined until it is set, even if the caller
// gave a variable of that name.
#pragma once

#include "text/jinja_parser.h"

namespace orrery::text::jinja {

/// Fills in `hidden`, `hidden_otherwise` and the `takes_...` flags of the root and of
/// all statements below it.
void analyze_scopes(Statement& root);

}  // namespace orrery::text::jinja
