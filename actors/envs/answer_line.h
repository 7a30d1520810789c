// Reads a line behind "####": it is a number, another answer, or just a Markdown
// heading.
//
// A line that begins with a number (after a currency sign, a sign, emphasis or "=")
// says that number, whatever words follow, unless the number is part of something
// larger: a tuple, a list, a range, a ratio, a time, an expression. "20 - 2 = 18" says
// what stands behind its last "=", and "42 = 50 - 8" what stands before its first. "2.
// Words" is a heading.
//
// A line that begins otherwise says a number if one stands behind its last ":" or "=",
// or if it holds a single number that follows a word ("She makes 18 dollars", but not
// "Step 2"). In the middle of a response it must also not begin as headings do ("Day 3:
// 72"). Any other line is a heading, unless it holds no word at all: "(a+5)(b+2)" and
// "B" are answers, which are compared as text.
#pragma once

#include <string_view>

namespace orrery::actors {

struct AnswerLine {
  bool heading = false;
  /// The line from its number on. Empty when the line says no number: then an answer is
  /// compared as text.
  std::string_view value;
};

/// Reads `line`, which is plain_text() behind the mark. `is_last` says that nothing
/// follows it in the response. Takes time linear in the line's length.
AnswerLine read_answer_line(std::string_view line, bool is_last);

}  // namespace orrery::actors
