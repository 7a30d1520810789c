#include "actors/envs/number_context.h"

#include <algorithm>
#include <iterator>

#include "actors/envs/latex_words.h"

namespace orrery::actors {
namespace {

constexpr size_t kLongestCommand = 12;

/// The name of the command that ends right before `end`.
std::string_view command_before(std::string_view text, size_t end) {
  size_t begin = end;
  while (begin > 0 && end - begin <= kLongestCommand && is_letter(text[begin - 1])) --begin;
  return begin > 0 && begin < end && text[begin - 1] == '\\' ? text.substr(begin, end - begin)
                                                             : std::string_view{};
}

bool is_unit_letter(char c) {
  return std::string_view("mgshlLWVAJNCF").find(c) != std::string_view::npos;
}

bool is_function(std::string_view word) {
  constexpr std::string_view kFunctions[] = {"pi",  "sqrt", "sin", "cos", "tan",
                                             "log", "ln",   "exp", "mod"};
  return std::find(std::begin(kFunctions), std::end(kFunctions), word) != std::end(kFunctions);
}

/// Whether an operator that stands before `at` works on what begins there: a number, a
/// variable, a parenthesis, a command. A word is no operand.
bool is_operand(std::string_view text, size_t at, bool spaced) {
  if (char_at(text, at) == '\\' && char_at(text, at + 1) == '$') ++at;
  if (char_at(text, at) == '$' && (is_digit(char_at(text, at + 1)) || char_at(text, at + 1) == '.'))
    ++at;
  const char c = char_at(text, at);
  if (is_digit(c) || c == '(' || (c == '.' && is_digit(char_at(text, at + 1)))) return true;
  if (c == '\\') return is_operator_command(command_at(text, at));
  const std::string_view word = word_at(text, at);
  if (word.size() == 1) return !spaced || (word != "a" && word != "I" && word != "A");
  return is_function(word);
}

/// Whether what stands behind "^" is no power: ^\circ, ^{\circ}, ^{th}.
bool is_mark_above(std::string_view text, size_t at) {
  const bool braced = char_at(text, at) == '{';
  if (braced) at = skip_spaces(text, at + 1);
  const std::string_view command = command_at(text, at);
  if (command == "circ" || command == "degree" || is_text_command(command)) return true;
  return braced && word_at(text, at).size() >= 2;
}

/// Whether letters behind a number are a factor: a variable or a function, but neither
/// a word nor a unit.
bool is_factor(std::string_view word, bool spaced) {
  if (word.size() != 1) return is_function(word);
  if (spaced && (word == "a" || word == "I" || word == "A")) return false;
  return !is_unit_letter(word.front());
}

bool operator_behind(std::string_view text, size_t end) {
  size_t at = skip_spaces(text, end);
  const bool spaced = at > end;
  const char c = char_at(text, at), next = char_at(text, at + 1);
  if (c == '*' && next == '*')
    return is_digit(char_at(text, at + 2)) || char_at(text, at + 2) == '(';
  if (c == '+' || c == '*' || c == '/' || c == '-') {
    const size_t operand = skip_spaces(text, at + 1);
    return is_operand(text, operand, spaced || operand > at + 1);
  }
  if (c == '\\') {
    const std::string_view command = command_at(text, at);
    if (is_operator_command(command)) return true;
    // 3\mathrm{i} is 3i
    at += 1 + command.size();
    if (!is_text_command(command) || char_at(text, at) != '{') return false;
    const size_t word = skip_spaces(text, at + 1);
    return is_factor(word_at(text, word), spaced || word > at + 1);
  }
  if (c == '(') return !spaced && is_operand(text, at + 1, false);
  return is_factor(word_at(text, at), spaced);
}

}  // namespace

bool taken_in_from_left(std::string_view plain, size_t begin) {
  size_t at = begin;
  const auto before = [&](size_t back) { return at >= back ? plain[at - back] : '\0'; };
  if (before(1) == '{' || before(1) == '[') {
    if (before(2) == '}' || before(2) == ']') return true;  // a second argument
    --at;
  }
  if (before(1) == '^' || (before(1) == '_' && before(2) != '_')) return true;  // __5__ is emphasis
  if (before(1) == '/') {
    const char c = before(2);
    if (is_digit(c) || is_letter(c) || c == ')' || c == '}') return true;
  }
  while (at > 0 && plain[at - 1] == ' ') --at;
  const std::string_view command = command_before(plain, at);
  return is_operator_command(command) && !is_layout_command(command) && !is_text_command(command);
}

bool taken_in_from_right(std::string_view plain, size_t& end) {
  const auto joins = [&](size_t i) {
    const char c = char_at(plain, i);
    return (c == ':' || c == '.' || c == '/') && is_digit(char_at(plain, i + 1));
  };
  if (joins(end)) {
    while (joins(end) || is_digit(char_at(plain, end))) ++end;
    return true;
  }
  // 12h30, 5m20s
  size_t letters = end;
  while (is_letter(char_at(plain, letters))) ++letters;
  if (letters > end && is_digit(char_at(plain, letters))) {
    end = letters;
    while (is_digit(char_at(plain, end)) || is_letter(char_at(plain, end))) ++end;
    return true;
  }
  const char c = char_at(plain, end), next = char_at(plain, end + 1);
  if (c == '^') return !is_mark_above(plain, end + 1);
  if (c == '_') return is_digit(next) || is_letter(next) || next == '{' || next == '\\';
  return operator_behind(plain, end);
}

}  // namespace orrery::actors
