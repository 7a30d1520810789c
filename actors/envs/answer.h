// Finds the answer in a response.
//
// A marked answer stands in \boxed{...} or \fbox{...}, or behind "####" up to the end
// of the line. If there are several, the last one counts. "####" may also begin a
// heading (answer_line.h says when); a heading counts only if there is no other marked
// answer, and then as a whole.
#pragma once

#include <optional>
#include <string_view>

namespace orrery::actors {

struct MarkedAnswer {
  enum class Mark { kHashes, kBox, kHeading };
  Mark mark = Mark::kBox;
  std::string_view text;   ///< what is inside the box, or the rest of the line
  std::string_view value;  ///< the line from its number on; empty when it says no number
};

/// Returns the marked answer that counts. Takes plain_text(), into which the result
/// points, and time linear in its length.
std::optional<MarkedAnswer> last_marked_answer(std::string_view plain);
/// Does the same with boxes alone. A box whose braces are not closed is not a box.
std::optional<MarkedAnswer> last_boxed_answer(std::string_view plain);

}  // namespace orrery::actors
