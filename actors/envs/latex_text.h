// One spelling for a piece of LaTeX, so that two pieces which print alike, or which
// mean the same, are equal as strings. It is conservative and never rewrites
// mathematics.
//
// It leaves out spaces (except between two digits), \left, \right and sizes, $ signs,
// braces around one thing, and \text{} and the like around their argument. \dfrac and
// \tfrac become \frac, \le becomes \leq, .5 becomes 0.5, and x^10 becomes x^{10}.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// Spells `plain`, which is plain_text(), in time linear in its length.
std::string canonical_latex(std::string_view plain);

}  // namespace orrery::actors
