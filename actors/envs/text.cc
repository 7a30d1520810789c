#include "actors/envs/text.h"

#include <cctype>

namespace orrery {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// "0012" -> "12", "" -> "0"
std::string without_leading_zeros(std::string_view digits) {
  const size_t first = digits.find_first_not_of('0');
  return first == std::string_view::npos ? "0" : std::string(digits.substr(first));
}

}  // namespace

std::string_view strip(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::optional<std::string> normalize_number(std::string_view text) {
  text = strip(text);
  std::string kept;
  for (const char c : text) {
    if (c != ',' && c != '$' && c != '%' && c != ' ') kept += c;
  }
  while (!kept.empty() && kept.back() == '.') kept.pop_back();
  bool negative = false;
  size_t at = 0;
  if (at < kept.size() && (kept[at] == '-' || kept[at] == '+')) negative = kept[at++] == '-';
  const size_t integer_begin = at;
  while (at < kept.size() && is_digit(kept[at])) ++at;
  const std::string_view integer = std::string_view(kept).substr(integer_begin, at - integer_begin);
  std::string result;
  if (at < kept.size() && kept[at] == '/') {
    const std::string_view denominator = std::string_view(kept).substr(at + 1);
    if (integer.empty() || denominator.empty()) return std::nullopt;
    for (const char c : denominator) {
      if (!is_digit(c)) return std::nullopt;
    }
    result = without_leading_zeros(integer) + "/" + without_leading_zeros(denominator);
  } else {
    std::string_view fraction;
    if (at < kept.size() && kept[at] == '.') {
      fraction = std::string_view(kept).substr(at + 1);
      at = kept.size();
      for (const char c : fraction) {
        if (!is_digit(c)) return std::nullopt;
      }
      while (!fraction.empty() && fraction.back() == '0') fraction.remove_suffix(1);
    }
    if (at != kept.size() || (integer.empty() && fraction.empty())) return std::nullopt;
    result = without_leading_zeros(integer);
    if (!fraction.empty()) result += "." + std::string(fraction);
  }
  if (negative && result != "0") result.insert(result.begin(), '-');
  return result;
}

std::optional<std::string> last_number(std::string_view text) {
  size_t end = text.size();
  while (end > 0 && !is_digit(text[end - 1])) --end;
  if (end == 0) return std::nullopt;
  const auto belongs = [&](size_t i) {
    const char c = text[i];
    if (is_digit(c)) return true;
    // A separator inside a number stands between digits; a decimal point may also begin one.
    return (c == ',' || c == '.' || c == '/') && i > 0 && is_digit(text[i - 1]) && i + 1 < text.size() &&
           is_digit(text[i + 1]);
  };
  size_t begin = end;
  while (begin > 0 && belongs(begin - 1)) --begin;
  // A minus sign counts when it does not stand between two operands ("7-15" ends in 15, "is -15" in -15).
  if (begin > 0 && text[begin - 1] == '-') {
    const bool after_operand =
        begin >= 2 &&
        (std::isalnum(static_cast<unsigned char>(text[begin - 2])) != 0 || text[begin - 2] == ')');
    if (!after_operand) --begin;
  }
  return normalize_number(text.substr(begin, end - begin));
}

}  // namespace orrery
