#include "actors/envs/quantity.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "actors/envs/latex_words.h"
#include "actors/envs/number_scanner.h"

namespace orrery {
namespace {

constexpr size_t kWord = 3;  // letters from which on a bare word is a unit, and no product of variables

template <size_t N>
bool contains(const std::string_view (&words)[N], std::string_view word) {
  return std::find(std::begin(words), std::end(words), word) != std::end(words);
}

/// A currency sign at `at`: its bytes and its name. A bare "$" is mostly the end of a formula, so it has no
/// name.
struct Currency {
  size_t length = 0;
  std::string_view name;
};
Currency currency_at(std::string_view text, size_t at) {
  constexpr std::string_view kNames[] = {"cents", "pounds", "yen", "euro", "rupee", "won"};
  if (text.substr(at, 1) == "$") return {1, ""};
  if (text.substr(at, 2) == "\\$") return {2, "$"};
  const std::string_view command = command_at(text, at);
  return contains(kNames, command) ? Currency{1 + command.size(), command} : Currency{};
}

/// Words that change the number or begin something else than a unit.
bool is_no_unit(std::string_view word) {
  constexpr std::string_view kOther[] = {
      "or",  "and", "mod",  "hundred", "thousand", "half", "million", "billion", "trillion", "pi",
      "sin", "cos", "tan",  "log",     "exp",      "sqrt", "squared", "cubed",   "of",       "to",
      "is",  "not", "plus", "minus",   "times",    "over", "base",    "if",      "when"};
  return contains(kOther, word);
}

bool is_short_unit(std::string_view word) {
  constexpr std::string_view kShort[] = {"mm",  "cm",  "dm",  "km",  "mg",  "kg",  "ml",  "dl", "cl", "ft",
                                         "in",  "yd",  "mi",  "lb",  "oz",  "hr",  "am",  "pm", "ms", "sq",
                                         "mph", "kph", "lbs", "hrs", "min", "sec", "yds", "gal"};
  return contains(kShort, word);
}

std::string unit_word(std::string_view letters) {
  std::string word(letters);
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (word.size() > kWord && word.back() == 's' && word[word.size() - 2] != 's') word.pop_back();
  if (word == "degree") return "°";
  if (word == "percent") return "%";
  return word == "dollar" || word == "usd" ? "$" : word;
}

void append_word(std::string& unit, std::string_view letters) {
  const std::string word = unit_word(letters);
  if (!unit.empty() && !word.empty()) unit += ' ';
  unit += word;
}

/// Words, and full stops as in "a.m."; false when there is anything else.
bool append_words(std::string_view text, std::string& unit, bool bare) {
  bool first = true;
  for (size_t at = skip_spaces(text, 0); at < text.size(); at = skip_spaces(text, at)) {
    size_t end = at;
    while (end < text.size() && is_letter(text[end])) ++end;
    const std::string_view word = text.substr(at, end - at);
    if (word.empty() || (first && is_no_unit(word))) return false;
    // Letters without \text are variables unless they look like a word.
    if (bare && (first ? word.size() < kWord : word.size() < 2) && !is_short_unit(word)) return false;
    append_word(unit, word);
    first = false;
    at = end;
    while (at < text.size() && (text[at] == '.' || text[at] == '/' || text[at] == '-')) {
      if (text[at] == '/') unit += '/';
      ++at;
    }
  }
  return true;
}

/// ^2, ^{3} at `at`: of a unit.
size_t power_at(std::string_view text, size_t at, char& power) {
  if (at >= text.size() || text[at] != '^') return 0;
  const bool braced = text.substr(at + 1, 1) == "{";
  const size_t digit = at + (braced ? 2 : 1);
  if (digit >= text.size() || (text[digit] != '2' && text[digit] != '3')) return 0;
  if (braced && text.substr(digit + 1, 1) != "}") return 0;
  power = text[digit];
  return digit + (braced ? 2 : 1) - at;
}

size_t degrees_at(std::string_view text, size_t at) {
  for (const std::string_view sign :
       {"^\\circ", "^{\\circ}", "^{\\circ }", "\\circ", "\\degree", "^\\degree"}) {
    if (text.substr(at, sign.size()) == sign) return sign.size();
  }
  return 0;
}

/// What stands behind a number, as a unit; nothing when it is more than one.
std::optional<std::string> read_unit(std::string_view text, bool attached) {
  std::string unit;
  size_t at = skip_spaces(text, 0);
  attached = attached && at == 0;
  while (at < text.size()) {
    char power = '\0';
    const std::string_view command = command_at(text, at);
    const size_t open = at + 1 + command.size();
    if (const Currency currency = currency_at(text, at); currency.length > 0) {
      append_word(unit, currency.name);
      at += currency.length;
    } else if (const size_t degrees = degrees_at(text, at); degrees > 0) {
      unit += "°";
      at += degrees;
    } else if (text[at] == '%' || text.substr(at, 2) == "\\%") {
      unit += '%';
      at += text[at] == '%' ? 1 : 2;
    } else if (const size_t length = power_at(text, at, power); length > 0 && !unit.empty()) {
      unit.append(1, '^') += power;
      at += length;
    } else if (is_words_command(command) && text.substr(open, 1) == "{") {
      const size_t close = text.find('}', open);
      if (close == std::string_view::npos ||
          !append_words(text.substr(open + 1, close - open - 1), unit, false)) {
        return std::nullopt;
      }
      at = close + 1;
    } else if (unit.ends_with("°") && std::string_view("CFK").find(text[at]) != std::string_view::npos) {
      unit += text[at++];
    } else if (is_letter(text[at])) {
      size_t end = at;
      while (end < text.size() &&
             (is_letter(text[end]) || std::string_view(" ./-").find(text[end]) != std::string_view::npos)) {
        ++end;
      }
      const std::string_view words = text.substr(at, end - at);
      const std::string_view first = words.substr(0, words.find_first_of(" ./-"));
      if ((attached && !is_short_unit(first)) || !append_words(words, unit, true)) return std::nullopt;
      at = end;
    } else {
      return std::nullopt;
    }
    attached = false;
    at = skip_spaces(text, at);
  }
  return unit;
}

/// What may stand before a number: a currency sign and space. Its name goes to `unit`.
bool only_currency(std::string_view text, std::string& unit) {
  size_t at = skip_spaces(text, 0);
  while (at < text.size()) {
    const Currency currency = currency_at(text, at);
    if (currency.length == 0) return false;
    unit += unit_word(currency.name);
    at = skip_spaces(text, at + currency.length);
  }
  return true;
}

/// 1 234 567: blanks between groups of three digits at the beginning.
bool has_spaced_groups(std::string_view text) {
  const size_t begin = std::min(text.find_first_of("0123456789"), text.size());
  size_t at = begin;
  while (at < text.size() && is_digit(text[at])) ++at;
  return at > begin && at - begin <= 3 && at + 1 < text.size() && (text[at] == ' ' || text[at] == '~') &&
         is_digit(text[at + 1]);
}

}  // namespace

std::optional<Quantity> read_quantity(std::string_view plain) {
  NumberScanner scanner(plain, has_spaced_groups(plain) ? NumberStyle::kSpacedGroups : NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || !token->number) return std::nullopt;
  std::string before;
  if (!only_currency(plain.substr(0, token->begin), before)) return std::nullopt;
  const auto unit = read_unit(plain.substr(token->end), /*attached=*/true);
  if (!unit) return std::nullopt;
  return Quantity{*token->number, before.empty() || unit->empty() ? before + *unit : before + " " + *unit};
}

std::string leading_words(std::string_view plain) {
  std::string words;
  for (size_t at = skip_spaces(plain, 0); at < plain.size() && is_letter(plain[at]);
       at = skip_spaces(plain, at)) {
    size_t end = at;
    while (end < plain.size() && is_letter(plain[end])) ++end;
    append_word(words, plain.substr(at, end - at));
    at = end;
  }
  return words;
}

bool same(const Quantity& a, const Quantity& b) {
  return (a.unit.empty() || b.unit.empty() || a.unit == b.unit) && a.number == b.number;
}

}  // namespace orrery
