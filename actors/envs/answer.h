// Finding the answer in a response.
//
// A marked answer stands in \boxed{...} or \fbox{...}, or behind "####" up to the end
// of the line. Of several, the last counts. Behind "####" may also stand a heading
// (answer_line.h says which): it counts only where there is no other marked answer, and
// then as a whole.
#pragma once

#include <optional>
#include <string_view>

namespace orrery::actors {

struct MarkedAnswer {
  enum class Mark { kHashes, kBox, kHeading };
  Mark mark = Mark::kBox;
  std::string_view text;   ///< inside the box, or the rest of the line
  std::string_view value;  ///< of a line, from its number on; empty when it says none
};

/// Both take plain_text(), which the result looks into, and time linear in its length.
std::optional<MarkedAnswer> last_marked_answer(std::string_view plain);
/// Of boxes alone. A box whose braces do not end is none.
std::optional<MarkedAnswer> last_boxed_answer(std::string_view plain);

}  // namespace orrery::actors
