#include "actors/envs/quantity.h"

#include <algorithm>
#include <vector>

#include "actors/envs/latex_words.h"
#include "actors/envs/number_scanner.h"
#include "actors/envs/units.h"

namespace orrery::actors {
namespace {

/// The bytes and the name of a currency sign at `at`. A bare "$" has no name, as it is
/// mostly the end of a formula.
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

/// The bytes of a unit's power at `at`: ^2, ^{3}.
size_t power_at(std::string_view text, size_t at) {
  if (at >= text.size() || text[at] != '^') return 0;
  const bool braced = text.substr(at + 1, 1) == "{";
  const size_t digit = at + (braced ? 2 : 1);
  if (digit >= text.size() || (text[digit] != '2' && text[digit] != '3')) return 0;
  if (braced && text.substr(digit + 1, 1) != "}") return 0;
  return digit + (braced ? 2 : 1) - at;
}

std::string currency_unit(std::string_view name) {
  const std::string unit = unit_name(name);
  return unit.empty() ? std::string(name) : unit;
}

/// "am" for a.m, "pm" for p.m, empty for anything else.
std::string_view half_of_day(std::string_view text, size_t at) {
  const std::string_view three = text.substr(at, 3);
  if (three == "a.m" || three == "A.M") return "am";
  return three == "p.m" || three == "P.M" ? "pm" : std::string_view{};
}

size_t degrees_at(std::string_view text, size_t at) {
  for (const std::string_view sign :
       {"^\\circ", "^{\\circ}", "^{\\circ }", "\\circ", "\\degree", "^\\degree"}) {
    if (text.substr(at, sign.size()) == sign) return sign.size();
  }
  return 0;
}

/// A piece of what stands behind a number.
struct Token {
  enum class Kind { kWord, kPower, kSlash, kPercent, kDegrees, kCurrency };
  Kind kind = Kind::kWord;
  std::string_view text;  // a word, the name of a currency, the digit of a power
  bool upright = false;   // inside \text{} or \mathrm{}
  bool spaced = false;    // space before it
};

/// Returns the tokens up to the first thing that belongs to no unit, and in `end` where
/// that is.
std::vector<Token> tokenize(std::string_view text, size_t& end) {
  constexpr size_t kMaxTokens = 12;
  std::vector<Token> tokens;
  bool upright = false, spaced = false;
  size_t at = 0;
  const auto push = [&](Token::Kind kind, std::string_view word, size_t length) {
    tokens.push_back({kind, word, upright, spaced});
    spaced = false;
    at += length;
  };
  for (end = 0; at < text.size() && tokens.size() < kMaxTokens; end = at) {
    const std::string_view command = command_at(text, at);
    const size_t open = at + 1 + command.size();
    if (const size_t space = space_at(text, at); space > 0) {
      spaced = true;
      at += space;
    } else if (const Currency currency = currency_at(text, at); currency.length > 0) {
      if (currency.name.empty()) {
        ++at;
      } else {
        push(Token::Kind::kCurrency, currency.name, currency.length);
      }
    } else if (const size_t degrees = degrees_at(text, at); degrees > 0) {
      push(Token::Kind::kDegrees, "", degrees);
    } else if (text[at] == '%' || text.substr(at, 2) == "\\%") {
      push(Token::Kind::kPercent, "", text[at] == '%' ? 1 : 2);
    } else if (const size_t power = power_at(text, at); power > 0) {
      push(Token::Kind::kPower, text.substr(at + (text[at + 1] == '{' ? 2 : 1), 1), power);
    } else if (is_words_command(command) && !upright && text.substr(open, 1) == "{") {
      upright = true;
      at = open + 1;
    } else if (text[at] == '}' && upright) {
      upright = false;
      ++at;
    } else if (is_layout_command(command)) {
      spaced = true;
      at = open;
    } else if (text[at] == '/') {
      push(Token::Kind::kSlash, "", 1);
    } else if (text[at] == '.' && !tokens.empty() && tokens.back().kind == Token::Kind::kWord) {
      ++at;  // sq. ft.
    } else if (const std::string_view half = half_of_day(text, at); !half.empty()) {
      push(Token::Kind::kWord, half, 3);
    } else if (is_letter(text[at])) {
      size_t word = at;
      while (word < text.size() && is_letter(text[word])) ++word;
      push(Token::Kind::kWord, text.substr(at, word - at), word - at);
    } else {
      break;
    }
  }
  if (upright) end = 0;  // a group that does not end
  return tokens;
}

/// Reads a unit from the tokens' beginning.
class UnitReader {
 public:
  UnitReader(const std::vector<Token>& tokens, bool after_currency)
      : tokens_(tokens), after_currency_(after_currency) {}

  size_t at() const { return at_; }

  /// Reads the unit, after which at() is behind it; empty when there is none.
  std::string read() {
    if (tokens_.empty()) return "";
    const Token& first = tokens_.front();
    if (first.kind == Token::Kind::kPercent) return ++at_, "%";
    if (first.kind == Token::Kind::kDegrees) return degrees();
    std::string unit;
    if (first.kind == Token::Kind::kCurrency) {
      ++at_;
      unit = currency_unit(first.text);
    } else if (!after_currency_ || !is_per(at_)) {
      unit = factor();
      if (unit.empty()) return "";
    }
    while (is_per(at_)) {
      const size_t before = at_++;
      const std::string below = factor();
      if (below.empty()) {
        at_ = before;
        break;
      }
      unit += "/" + below;
    }
    return unit;
  }

 private:
  std::string_view word(size_t i) const {
    return i < tokens_.size() && tokens_[i].kind == Token::Kind::kWord ? tokens_[i].text
                                                                       : std::string_view{};
  }

  bool is_per(size_t i) const {
    if (i < tokens_.size() && tokens_[i].kind == Token::Kind::kSlash) return true;
    return word(i) == "per" || (i > 0 && (word(i) == "a" || word(i) == "an"));
  }

  std::string degrees() {
    ++at_;
    const std::string_view scale = word(at_);
    for (const std::string_view name : {"Celsius", "Fahrenheit"}) {
      if (scale != name && scale != name.substr(0, 1)) continue;
      ++at_;
      return "°" + std::string(name.substr(0, 1));
    }
    return "°";
  }

  /// A letter is a unit where it cannot be a variable: if it is upright and apart from
  /// the number, in "m/s", and below the line.
  std::string letter(const Token& token) const {
    const bool over = at_ + 1 < tokens_.size() && tokens_[at_ + 1].kind == Token::Kind::kSlash;
    const bool speed = over && token.text == "m" && word(at_ + 2) == "s";
    const bool below = at_ > 0 && (token.upright || token.text == "s" || token.text == "h");
    if (!below && !(token.upright && (token.spaced || over)) && !(token.spaced && speed)) return "";
    return std::string(letter_unit(token.text.front()));
  }

  /// Reads one factor of a unit: cm, square feet, m^2, different ways.
  std::string factor() {
    const size_t begin = at_;
    char power = '\0';
    for (; !word(at_).empty() && power == '\0'; ++at_) {
      const std::string_view here = word(at_);
      if (here == "square" || here == "sq") power = '2';
      if (here == "cubic" || here == "cu") power = '3';
      if (power == '\0' && !is_idle_adjective(here)) break;
    }
    std::string unit;
    if (const std::string_view here = word(at_); here.size() == 1) {
      unit = letter(tokens_[at_]);
    } else if (!here.empty()) {
      const Token& token = tokens_[at_];
      const bool variables =
          at_ == 0 && !token.upright && !token.spaced && !is_plain_abbreviation(here);
      if (!variables) unit = unit_name(here);
    }
    if (unit.empty()) {
      at_ = begin;
      return "";
    }
    ++at_;
    if (at_ < tokens_.size() && tokens_[at_].kind == Token::Kind::kPower && power == '\0') {
      power = tokens_[at_++].text.front();
    } else if (power == '\0' && (word(at_) == "squared" || word(at_) == "cubed")) {
      power = word(at_++) == "squared" ? '2' : '3';
    }
    if (word(at_) == "old" || word(at_) == "each") ++at_;
    if (power == '\0') return unit;
    if (!is_measure(unit)) {
      at_ = begin;
      return "";
    }
    unit.append(1, '^') += power;
    return unit;
  }

  const std::vector<Token>& tokens_;
  const bool after_currency_;
  size_t at_ = 0;
};

/// Whether only a currency sign and space stand before a number. Adds its name to
/// `unit`.
bool only_currency(std::string_view text, std::string& unit) {
  size_t at = skip_spaces(text, 0);
  while (at < text.size()) {
    const Currency currency = currency_at(text, at);
    if (currency.length == 0) return false;
    unit += currency_unit(currency.name);
    at = skip_spaces(text, at + currency.length);
  }
  return true;
}

/// Whether blanks separate groups of three digits at the beginning, as in 1 234 567.
bool has_spaced_groups(std::string_view text) {
  const size_t begin = std::min(text.find_first_of("0123456789"), text.size());
  size_t at = begin;
  while (at < text.size() && is_digit(text[at])) ++at;
  return at > begin && at - begin <= 3 && at + 1 < text.size() &&
         (text[at] == ' ' || text[at] == '~') && is_digit(text[at + 1]);
}

}  // namespace

std::optional<Quantity> read_quantity(std::string_view plain) {
  NumberScanner scanner(
      plain, has_spaced_groups(plain) ? NumberStyle::kSpacedGroups : NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || !token->number) return std::nullopt;
  std::string before;
  if (!only_currency(plain.substr(0, token->begin), before)) return std::nullopt;
  const std::string_view behind = plain.substr(token->end);
  size_t end = 0;
  const std::vector<Token> tokens = tokenize(behind, end);
  if (end < behind.size()) return std::nullopt;
  UnitReader reader(tokens, !before.empty());
  const std::string unit = reader.read();
  if (reader.at() < tokens.size()) return std::nullopt;
  // \$5 is not a length: only its own name may follow it, or what it is paid for.
  if (before.empty() || unit == before) return Quantity{*token->number, unit};
  if (!unit.empty() && unit.front() != '/') return std::nullopt;
  return Quantity{*token->number, before + unit};
}

std::string_view without_unit(std::string_view plain, std::string& unit) {
  constexpr size_t kLongest = 64;
  int depth = 0;
  bool digits = false;
  for (size_t at = 0; at < plain.size(); ++at) {
    const std::string_view command = command_at(plain, at);
    if (depth == 0 && digits && plain.size() - at <= kLongest && is_words_command(command) &&
        plain[at - 1] != '^' && plain[at - 1] != '_') {
      const std::string_view rest = plain.substr(at);
      size_t end = 0;
      const std::vector<Token> tokens = tokenize(rest, end);
      UnitReader reader(tokens, false);
      unit = end == rest.size() ? reader.read() : "";
      if (!unit.empty() && reader.at() == tokens.size()) return plain.substr(0, at);
    }
    if (plain[at] == '\\') {
      at += std::max<size_t>(command.size(), 1);
      continue;
    }
    digits = digits || is_digit(plain[at]);
    depth += plain[at] == '{' ? 1 : (plain[at] == '}' ? -1 : 0);
  }
  unit.clear();
  return plain;
}

LeadingUnit leading_unit(std::string_view plain) {
  size_t end = 0;
  const std::vector<Token> tokens = tokenize(plain, end);
  return {UnitReader(tokens, false).read(),
          !tokens.empty() && tokens.front().kind == Token::Kind::kWord};
}

bool same(const Quantity& a, const Quantity& b) {
  return (a.unit.empty() || b.unit.empty() || a.unit == b.unit) && a.number == b.number;
}

}  // namespace orrery::actors
