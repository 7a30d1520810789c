#include "actors/envs/answer_line.h"

#include <algorithm>
#include <optional>
#include <string>

#include "actors/envs/latex_words.h"
#include "actors/envs/number_scanner.h"
#include "actors/envs/units.h"

namespace orrery::actors {
namespace {

bool is_one_of(std::string_view characters, char c) {
  return characters.find(c) != std::string_view::npos;
}

/// Bytes at `at` of what may stand between a line's beginning and its number, or
/// between the number and what goes on: space, emphasis, formula signs, parentheses.
size_t wrapping_at(std::string_view text, size_t at, std::string_view characters) {
  if (at >= text.size()) return 0;
  if (is_one_of(characters, text[at])) return 1;
  if (const size_t space = space_at(text, at); space > 0) return space;
  if (text[at] == '\\' && is_one_of("$()[]%", char_at(text, at + 1)) && at + 1 < text.size())
    return 2;
  const std::string_view command = command_at(text, at);
  const bool idle = command == "euro" || command == "pounds" || command == "yen" ||
                    command == "rupee" || command == "won" || command == "approx" ||
                    is_text_command(command) || is_layout_command(command);
  return idle ? 1 + command.size() : 0;
}

bool only_wrapping(std::string_view text) {
  size_t at = 0;
  for (size_t length = 1; length > 0 && at < text.size(); at += length) {
    length = wrapping_at(text, at, " \t\r*`_$~=:([{\"'");
  }
  return at >= text.size();
}

/// Whether a number, perhaps with sign and currency, begins at `at`.
bool number_at(std::string_view text, size_t at) {
  at = skip_spaces(text, at);
  while (at < text.size() && is_one_of("+-$\\", text[at]) &&
         is_one_of("+-$0123456789.\\", char_at(text, at + 1)))
    ++at;
  return is_digit(char_at(text, at)) ||
         (char_at(text, at) == '.' && is_digit(char_at(text, at + 1))) ||
         is_fraction_command(command_at(text, at));
}

/// Bytes of an ellipsis at `at`: of a range.
size_t dots_at(std::string_view text, size_t at) {
  const std::string_view command = command_at(text, at);
  if (command == "ldots" || command == "dots" || command == "cdots") return 1 + command.size();
  if (text.substr(at, 3) == "\u2026") return 3;
  size_t end = at;
  while (char_at(text, end) == '.') ++end;
  return end - at >= 2 ? end - at : 0;
}

/// Whether what stands behind the number that ends at `end` makes it part of something
/// larger. What one number's neighbours say at once (2^5, 5x, 12:30) the scanner has
/// seen.
bool goes_on(std::string_view text, size_t end) {
  size_t at = end;
  for (size_t length = 1; length > 0; at += length) length = wrapping_at(text, at, "*`_$~)]{}\"'%");
  if (at >= text.size()) return false;
  const char c = text[at];
  if (is_digit(c) || c == '^' || c == '<' || c == '>' || (c == '!' && at == end)) return true;
  if ((c == '(' || c == '[') && is_one_of(kBlank, text[at - 1])) return false;  // 42 (from 50 - 8)
  if (c == '(' || c == '[')
    return is_digit(char_at(text, at + 1)) || is_sign(char_at(text, at + 1));
  if (const size_t dots = dots_at(text, at); dots > 0) return number_at(text, at + dots);
  if (is_one_of(",;:|&@#+-*/", c)) return number_at(text, at + 1);
  if (const std::string_view command = command_at(text, at); !command.empty()) {
    constexpr std::string_view kRelations[] = {"le", "ge", "leq", "geq", "lt",
                                               "gt", "ne", "neq", "to",  "in"};
    return (is_operator_command(command) && !is_text_command(command)) ||
           contains(kRelations, command) || is_fraction_command(command);
  }
  constexpr std::string_view kJoining[] = {"or",    "and",   "to",      "through",   "plus",
                                           "minus", "times", "over",    "by",        "choose",
                                           "point", "mod",   "divided", "multiplied"};
  std::string_view word = word_at(text, at);
  if (!contains(kJoining, word)) return false;
  at += word.size();
  if (word == "divided" || word == "multiplied") {
    at = skip_spaces(text, at);
    if (word_at(text, at) == "by") at += 2;
  }
  while (is_one_of(" }", char_at(text, at)) && at < text.size()) ++at;
  return number_at(text, at);
}

/// The segment from its number on, when it begins with one that stands for itself.
std::optional<std::string_view> leading_number(std::string_view segment) {
  NumberScanner scanner(segment, NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || !token->number || !only_wrapping(segment.substr(0, token->begin)))
    return std::nullopt;
  return goes_on(segment, token->end) ? std::nullopt : std::optional(segment.substr(token->begin));
}

/// "2. Compute", "1) Add", "3: Check", "2 - Answer", and in the middle of a response
/// "1.2 Compute".
bool is_numbered_heading(std::string_view line, bool is_last) {
  constexpr size_t kMaxDigits = 2;
  constexpr std::string_view kEmphasis = "*_`";
  const auto skip = [&](size_t at, std::string_view characters) {
    return std::min(line.find_first_not_of(characters, at), line.size());
  };
  size_t at = skip(0, " \t*_`");
  for (bool more = true; more;) {
    const size_t end = digits_end(line, at);
    if (end == at || end - at > kMaxDigits) return false;
    more = char_at(line, end) == '.' && is_digit(char_at(line, end + 1));
    at = end + (more ? 1 : 0);
  }
  at = skip(at, kEmphasis);
  const bool marked = at < line.size() && is_one_of(".):", line[at]);
  if (marked) at = skip(at + 1, kEmphasis);
  const size_t words = skip(at, " \t");
  if (words == at || skip(words, " \t\r*_`$.") >= line.size()) return false;
  if (marked) return true;
  const bool dash = line[words] == '-';
  const size_t title = skip(dash ? skip(words, "-") : words, " \t*_`");
  if (title >= line.size() || !is_upper(line[title])) return false;
  return dash || (!is_last && unit_name(word_at(line, title)).empty());
}

/// Words that a number behind them names: "Step 2" says no amount.
bool is_label(std::string_view word) {
  constexpr std::string_view kLabels[] = {
      "step",     "part",     "day",      "week",    "month",   "year",   "case",
      "question", "problem",  "section",  "chapter", "example", "method", "option",
      "stage",    "phase",    "round",    "no",      "number",  "item",   "task",
      "exercise", "approach", "scenario", "level",   "lesson",  "note",   "figure",
      "table",    "equation", "line",     "page",    "version"};
  return contains(kLabels, to_lower(word));
}

/// Whether "left = right" gives a value: left is a name, words or a computation, but no
/// equation in a variable.
bool names_value(std::string_view left) {
  bool single = false, other = false;
  for (size_t at = 0; at < left.size();) {
    const std::string_view command = command_at(left, at), word = word_at(left, at);
    if (!command.empty()) {
      if (command == "pm" || command == "sqrt" || command == "pi") return false;
      other = other || !(is_text_command(command) || is_layout_command(command));
      at += 1 + command.size();
    } else if (word.size() == 1) {
      const size_t next = skip_spaces(left, at + 1);
      const size_t before = left.substr(0, at).find_last_not_of(" \t");
      const bool times = (word == "x" || word == "X") && before != std::string_view::npos &&
                         is_digit(left[before]) &&
                         (is_digit(char_at(left, next)) || char_at(left, next) == '$');
      const bool article = (word == "a" || word == "A" || word == "I") && next > at + 1 &&
                           is_letter(char_at(left, next));
      single = single || !(times || article);
      ++at;
    } else if (!word.empty()) {
      at += word.size();
    } else {
      other = other || is_digit(left[at]) || is_one_of("+-*/^(", left[at]);
      ++at;
    }
  }
  return !(single && other);
}

/// The value of a line with "=": behind the last one, else before the first.
std::optional<std::string_view> value_of_equation(std::string_view line) {
  const size_t first = line.find('='), last = line.rfind('=');
  for (size_t at = first; at != std::string_view::npos; at = line.find('=', at + 1)) {
    if (at > 0 && is_one_of("<>!", line[at - 1])) return std::nullopt;
    if (char_at(line, at + 1) == '>') return std::nullopt;
  }
  const std::string_view middle = line.substr(first, last - first);
  if (middle.find_first_of(",;") != std::string_view::npos ||
      middle.find(" or ") != std::string_view::npos ||
      middle.find(" and ") != std::string_view::npos) {
    return std::nullopt;  // several equations
  }
  const size_t before = line.substr(0, last).rfind('=');
  const size_t left = before == std::string_view::npos ? 0 : before + 1;
  if (!names_value(line.substr(left, last - left))) return std::nullopt;
  if (const auto value = leading_number(line.substr(last + 1))) return value;
  return leading_number(line.substr(0, first));
}

/// Letters and digits without a word among them: a formula, or the letter of a choice.
bool is_formula(std::string_view line) {
  bool any = false;
  for (size_t at = 0; at < line.size();) {
    const std::string_view command = command_at(line, at), word = word_at(line, at);
    const bool text = is_text_command(command);
    if (text || (word.size() > 1 && word != "or" && word != "and")) return false;
    any = any || !command.empty() || !word.empty() || is_digit(line[at]);
    at += command.empty() ? std::max<size_t>(word.size(), 1) : 1 + command.size();
  }
  return any;
}

/// The one number of a line of words, behind a word that it is no label's.
std::optional<std::string_view> only_number(std::string_view line) {
  NumberScanner scanner(line, NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || !token->number || scanner.next() || goes_on(line, token->end)) return std::nullopt;
  size_t at = token->begin;
  while (at > 0 && is_one_of(" \t*_`$\\\"'~,", line[at - 1])) --at;
  size_t begin = at;
  while (begin > 0 && is_letter(line[begin - 1])) --begin;
  const std::string_view word = line.substr(begin, at - begin);
  if (word.size() < 2 || is_label(word) || at == token->begin || char_at(line, begin - 1) == '\\')
    return std::nullopt;
  return line.substr(token->begin);
}

}  // namespace

AnswerLine read_answer_line(std::string_view line, bool is_last) {
  const AnswerLine other{/*heading=*/!is_formula(line), {}};
  NumberScanner scanner(line, NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token) return other;
  const bool equation = line.find('=', std::min(line.find_first_not_of(" \t*_`$:="),
                                                line.size())) != std::string_view::npos;
  if (only_wrapping(line.substr(0, token->begin))) {
    if (is_numbered_heading(line, is_last)) return {true, {}};
    return {
        false,
        (equation ? value_of_equation(line) : leading_number(line)).value_or(std::string_view{})};
  }
  const std::string words = to_lower(line);
  const bool answer = words.find("answer") != std::string::npos;
  const size_t first = std::min(line.find_first_not_of(" \t*_`"), line.size());
  if (!is_last && !answer && is_label(word_at(line, first))) return other;
  if (equation) {
    const auto value = value_of_equation(line);
    return value ? AnswerLine{false, *value} : other;
  }
  if (const size_t colon = line.rfind(':'); colon != std::string_view::npos) {
    if (const auto value = leading_number(line.substr(colon + 1))) return {false, *value};
  }
  if (is_last || answer) {
    if (const auto value = only_number(line)) return {false, *value};
  }
  return other;
}

}  // namespace orrery::actors
