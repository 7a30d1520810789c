// One spelling of a piece of LaTeX, so that two pieces which are printed alike, or
// differ in nothing that is meant, are equal as strings. Conservative: it never
// rewrites mathematics.
//
// Left out: spaces (but one between two digits), \left, \right and sizes, $ signs,
// braces around one thing,
// \text{} and its kind around their argument. \dfrac and \tfrac become \frac, \le \leq, .5 0.5, x^10 x^{10}.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

/// Takes plain_text(); linear in its length.
std::string canonical_latex(std::string_view plain);

}  // namespace orrery::actors
