// Which names belong to which scope. Internal to chat_template.h.
//
// Jinja decides this before it runs: a name that a scope sets before it reads it is
// that scope's own from the beginning. So where no scope around knows it either, a loop
// or macro inside finds it undefined until it is set, even where the caller gave a
// variable of that name.
#pragma once

#include "text/jinja_parser.h"

namespace orrery::text::jinja {

/// Fills in what Statement says is found here, for the root and everything below.
void analyze_scopes(Statement& root);

}  // namespace orrery::text::jinja
