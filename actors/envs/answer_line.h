// What a line behind "####" says: a number, another answer, or nothing but a heading of
// markdown.
//
// A line that begins with a number (behind a currency sign, a sign, emphasis, "=") says
// that number, whatever words follow, unless the number is part of something larger: a
// tuple, a list, a range, a ratio, a time, an expression. Of "20 - 2 = 18" it is what
// stands behind the last "="; of "42 = 50 - 8" what stands before the first. "2. Words"
// is a heading. A line that begins otherwise says a number where one stands behind its
// last ":" or "=", or where it holds one number alone behind a word ("She makes 18
// dollars", but not "Step 2"); in the middle of a response it must not begin as
// headings do ("Day 3: 72"). Else it is a heading, unless it holds no word at all:
// "(a+5)(b+2)" and "B" are answers, which are compared as text.
#pragma once

#include <string_view>

namespace orrery::actors {

struct AnswerLine {
  bool heading = false;
  std::string_view
      value;  ///< begins with the number; empty when the line says none, and is compared as text
};

/// `line` is plain_text() behind the mark; `is_last`: nothing follows it in the
/// response. Linear time.
AnswerLine read_answer_line(std::string_view line, bool is_last);

}  // namespace orrery::actors
