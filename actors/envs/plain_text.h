// Turns text as people and models type it into plain ASCII and LaTeX, so that the
// readers of numbers and answers need to know only one spelling of each thing.
//
// Dashes and the minus sign become "-", full-width and other scripts' digits become 0
// to 9, no-break and thin spaces become "\,", ½ becomes \frac{1}{2}, 10⁵ becomes
// 10^{5}, × becomes \times, π becomes \pi, and so on; characters that cannot be seen
// are dropped. Anything else, malformed UTF-8 included, stays as it is. Linear in the
// text's length.
#pragma once

#include <string>
#include <string_view>

namespace orrery::actors {

std::string plain_text(std::string_view text);

}  // namespace orrery::actors
