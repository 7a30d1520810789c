// Reads the unsigned parts of numbers: digits in groups, a decimal point, an exponent,
// a power of ten, a word like "million".
#include <algorithm>

#include "actors/envs/latex_words.h"
#include "actors/envs/number_scanner.h"

namespace orrery::actors {
namespace {

constexpr size_t kGroup = 3;
constexpr size_t kMaxExponentDigits = 15;

/// Reads digits as an exponent; nothing when there are none or the exponent is absurd.
std::optional<int64_t> to_exponent(std::string_view digits, bool negative) {
  if (digits.empty()) return std::nullopt;
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.size() > kMaxExponentDigits) return std::nullopt;
  int64_t value = 0;
  for (const char c : digits) value = value * 10 + (c - '0');
  return negative ? -value : value;
}

}  // namespace

/// The bytes of the thousands separator at i; 0 unless a digit follows it.
size_t NumberScanner::separator(size_t i) const {
  const std::string_view rest = text_.substr(std::min(i, text_.size()));
  size_t length = 0;
  bool spaces = false;
  if (rest.starts_with("{,}")) {
    length = 3;
  } else if (rest.starts_with("{\\,}")) {
    length = 4;
  } else if (rest.starts_with(",\\!")) {
    length = 3;
    spaces = true;
  } else if (rest.starts_with(",") || rest.starts_with("'")) {
    length = 1;
  } else if (rest.starts_with("\\")) {
    length = space_at(text_, i);
    spaces = true;
  } else if (style_ == NumberStyle::kSpacedGroups) {
    length = space_at(text_, i);
  }
  if (length == 0) return 0;
  while (spaces && at(i + length) == ' ') ++length;
  return is_digit(at(i + length)) ? length : 0;
}

/// Adds further groups to a part that has its first. All groups of a chain have three
/// digits, or none of them belongs to the number.
void NumberScanner::grouped_digits(Part& part) const {
  const size_t first = part.end - part.begin;
  if (first > kGroup || at(part.begin) == '0') return;
  // A chain that was refused is not read from its middle on.
  if (const size_t length = separator(previous_end_);
      previous_end_ > 0 && length > 0 && previous_end_ + length == part.begin) {
    return;
  }
  const char kind = at(part.end);
  std::string digits = part.digits;
  size_t end = part.end;
  for (size_t length = separator(end); length > 0; length = separator(end)) {
    const size_t group = end + length;
    const size_t group_end = digits_end(text_, group);
    if (group_end - group != kGroup || at(end) != kind) return;
    digits.append(text_.substr(group, kGroup));
    end = group_end;
  }
  if (kind == ' ' && at(end) == '/') return;
  part.digits = std::move(digits);
  part.end = end;
}

void NumberScanner::exponent(Part& part) const {
  size_t i = part.end;
  if (at(i) != 'e' && at(i) != 'E') return;
  ++i;
  const bool negative = at(i) == '-';
  if (is_sign(at(i))) ++i;
  const size_t end = digits_end(text_, i);
  if (end == i || is_letter(at(end))) return;
  const auto value = to_exponent(text_.substr(i, end - i), negative);
  part.readable = value.has_value();
  part.exponent += value.value_or(0);
  part.integer = false;
  part.end = end;
}

NumberScanner::Part NumberScanner::part(size_t begin) {
  Part part;
  part.begin = begin;
  part.end = digits_end(text_, begin);
  part.digits = std::string(text_.substr(begin, part.end - begin));
  grouped_digits(part);
  if (at(part.end) == '.' && is_digit(at(part.end + 1))) {
    const size_t end = digits_end(text_, part.end + 1);
    const std::string_view decimals = text_.substr(part.end + 1, end - part.end - 1);
    part.digits.append(decimals);
    part.exponent = -std::ssize(decimals);
    part.integer = false;
    part.end = end;
  }
  // 1.e3
  if (at(part.end) == '.' && (at(part.end + 1) == 'e' || at(part.end + 1) == 'E')) {
    Part dotted = part;
    ++dotted.end;
    exponent(dotted);
    if (dotted.end > part.end + 1) return dotted;
  }
  exponent(part);
  return part;
}

/// Reads 5, -5, {5} or { -5 } at i and moves i behind it.
std::optional<int64_t> NumberScanner::integer_exponent(size_t& i) const {
  size_t begin = i;
  const bool braced = at(begin) == '{';
  if (braced) begin = skip_spaces(text_, begin + 1);
  const bool negative = at(begin) == '-';
  if (is_sign(at(begin))) ++begin;
  size_t end = digits_end(text_, begin);
  const auto value =
      to_exponent(text_.substr(std::min(begin, text_.size()), end - begin), negative);
  if (braced) {
    end = skip_spaces(text_, end);
    if (at(end++) != '}') return std::nullopt;
  }
  if (value) i = end;
  return value;
}

/// Reads the rest of 10^5 or 3 \times 10^5, whose first number `part` is.
bool NumberScanner::power_of_ten(Part& part) const {
  size_t i = part.end;
  const bool ten =
      part.integer && part.digits == "10" && (at(i) == '^' || text_.substr(i, 2) == "**");
  if (!ten) {
    i = skip_spaces(text_, i);
    const std::string_view command = command_at(text_, i);
    const char c = at(i);
    if (command == "times" || command == "cdot") {
      i += command.size() + 1;
    } else if (c == '*' || ((c == 'x' || c == 'X') && !is_letter(at(i + 1)))) {
      ++i;
    } else {
      return false;
    }
    i = skip_spaces(text_, i);
    if (text_.substr(std::min(i, text_.size()), 2) != "10" || is_digit(at(i + 2))) return false;
    i = skip_spaces(text_, i + 2);
  }
  if (at(i) == '^') {
    ++i;
  } else if (text_.substr(std::min(i, text_.size()), 2) == "**") {
    i += 2;
  } else {
    return false;
  }
  const auto exponent = integer_exponent(i);
  if (!exponent) return false;
  if (ten) part.digits.resize(1);  // the exponent says the rest
  part.exponent += *exponent;
  part.end = i;
  return true;
}

/// Reads the word of 1.5 million or 2\text{ thousand}.
bool NumberScanner::scale_word(Part& part) const {
  struct Scale {
    std::string_view word;
    int64_t exponent;
  };
  constexpr Scale kScales[] = {
      {"hundred", 2}, {"thousand", 3}, {"million", 6}, {"billion", 9}, {"trillion", 12}};
  size_t i = skip_spaces(text_, part.end);
  const std::string_view command = command_at(text_, i);
  const bool braced = is_text_command(command) && at(i + 1 + command.size()) == '{';
  if (braced) i = skip_spaces(text_, i + command.size() + 2);
  for (const Scale& scale : kScales) {
    size_t length = 0;
    while (length < scale.word.size() && to_lower(at(i + length)) == scale.word[length]) ++length;
    if (length < scale.word.size() || is_letter(at(i + length))) continue;
    i += length;
    if (braced) {
      i = skip_spaces(text_, i);
      if (at(i++) != '}') return false;
    }
    part.exponent += scale.exponent;
    part.end = i;
    return true;
  }
  return false;
}

}  // namespace orrery::actors
