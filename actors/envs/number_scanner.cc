#include "actors/envs/number_scanner.h"

#include <algorithm>

#include "actors/envs/latex_words.h"
#include "actors/envs/number_context.h"
#include "actors/envs/plain_text.h"

namespace orrery::actors {

bool NumberScanner::number_begins(size_t i) const {
  if (is_digit(at(i))) return true;
  // "No.5" and "...5" are 5.
  return at(i) == '.' && is_digit(at(i + 1)) &&
         (i == 0 || !(is_letter(at(i - 1)) || at(i - 1) == '.'));
}

std::optional<NumberScanner::Fraction> NumberScanner::slash_fraction(const Part& numerator) {
  const auto skip = [&](size_t i) {
    return style_ == NumberStyle::kProse ? i : skip_spaces(text_, i);
  };
  size_t i = skip(numerator.end);
  if (at(i) != '/') return std::nullopt;
  i = skip(i + 1);
  if (!number_begins(i)) return std::nullopt;
  Fraction fraction{0, numerator, part(i), false};
  fraction.end = fraction.denominator.end;
  return fraction;
}

/// Reads {-1.5} or one digit at i and moves i behind it.
std::optional<NumberScanner::Part> NumberScanner::latex_argument(size_t& i, bool& negative) {
  i = skip_spaces(text_, i);
  if (is_digit(at(i))) {
    Part digit;
    digit.begin = i;
    digit.digits = std::string(1, at(i));
    digit.end = ++i;
    return digit;
  }
  if (at(i) != '{') return std::nullopt;
  i = skip_spaces(text_, i + 1);
  if (is_sign(at(i))) {
    negative ^= at(i) == '-';
    i = skip_spaces(text_, i + 1);
  }
  if (!number_begins(i)) return std::nullopt;
  Part argument = part(i);
  i = skip_spaces(text_, argument.end);
  if (at(i++) != '}') return std::nullopt;
  return argument;
}

std::optional<NumberScanner::Fraction> NumberScanner::latex_fraction(size_t begin) {
  const std::string_view command = command_at(text_, begin);
  if (!is_fraction_command(command)) return std::nullopt;
  Fraction fraction;
  size_t i = begin + 1 + command.size();
  auto numerator = latex_argument(i, fraction.negative);
  if (!numerator) return std::nullopt;
  auto denominator = latex_argument(i, fraction.negative);
  if (!denominator) return std::nullopt;
  fraction.numerator = std::move(*numerator);
  fraction.denominator = std::move(*denominator);
  fraction.end = i;
  return fraction;
}

/// Adds the fraction behind a whole number to the token: 1 1/2, 1\frac{1}{2}.
bool NumberScanner::mixed(const Part& whole, NumberToken& token) {
  size_t i = skip_spaces(text_, whole.end);
  if (style_ != NumberStyle::kProse && text_.substr(std::min(i, text_.size()), 4) == "and ") {
    i = skip_spaces(text_, i + 4);
  }
  std::optional<Fraction> fraction = latex_fraction(i);
  if (!fraction) {
    const size_t slash = digits_end(text_, i);
    if (i == whole.end || slash == i || at(slash) != '/' || !is_digit(at(slash + 1))) return false;
    Part numerator;
    numerator.begin = i;
    numerator.end = slash;
    numerator.digits = std::string(text_.substr(i, slash - i));
    fraction = slash_fraction(numerator);
  }
  if (!fraction || fraction->negative || !fraction->numerator.integer ||
      !fraction->denominator.integer) {
    return false;
  }
  const auto number =
      make_mixed(whole.digits, fraction->numerator.digits, fraction->denominator.digits);
  if (!number) return false;
  token.number = number;
  token.end = fraction->end;
  return true;
}

/// Whether what ends at `begin` is something that "-" subtracts from.
bool NumberScanner::operand_before(size_t begin) const {
  if (begin == 0) return false;
  const char c = at(begin - 1);
  return is_letter(c) || is_digit(c) || std::string_view(")]}%!").find(c) != std::string_view::npos;
}

/// Where the number begins with its sign, which may stand before or behind a currency
/// sign.
size_t NumberScanner::signed_begin(size_t begin, bool& negative) const {
  size_t i = begin;
  if (i > 0 && at(i - 1) == '$') i -= i > 1 && at(i - 2) == '\\' ? 2 : 1;
  if (i > 0 && is_sign(at(i - 1)) && !operand_before(i - 1)) {
    negative = at(i - 1) == '-';
    return i - 1;
  }
  if (style_ == NumberStyle::kProse) return begin;
  while (i > 0 && at(i - 1) == ' ') --i;
  if (i == 0 || !is_sign(at(i - 1))) return begin;
  size_t before = i - 1;
  while (before > 0 && at(before - 1) == ' ') --before;
  if (before > 0 && std::string_view("=({[,:$").find(at(before - 1)) == std::string_view::npos)
    return begin;
  negative = at(i - 1) == '-';
  return i - 1;
}

NumberToken NumberScanner::read(size_t begin) {
  NumberToken token;
  bool negative = false;
  token.begin = signed_begin(begin, negative);
  std::optional<Fraction> fraction = latex_fraction(begin);
  if (!fraction) {
    Part first = part(begin);
    token.end = first.end;
    if (first.readable && (power_of_ten(first) || scale_word(first))) {
      token.end = first.end;
      token.number = Number{false, first.decimal()};
    } else if (fraction = slash_fraction(first); !fraction) {
      if (!(first.integer && mixed(first, token)) && first.readable) {
        token.number = Number{false, first.decimal()};
      }
    }
  }
  if (fraction) {
    token.end = fraction->end;
    negative ^= fraction->negative;
    if (fraction->numerator.readable && fraction->denominator.readable) {
      token.number = make_fraction(fraction->numerator.decimal(), fraction->denominator.decimal());
    }
  }
  const bool left = taken_in_from_left(text_, token.begin),
             right = taken_in_from_right(text_, token.end);
  if (left || right) token.number.reset();
  if (token.number) token.number->negative = negative && !token.number->numerator.digits.empty();
  return token;
}

std::optional<NumberToken> NumberScanner::next() {
  while (at_ < text_.size()) {
    const std::string_view command = command_at(text_, at_);
    if (number_begins(at_) || (is_fraction_command(command) && latex_fraction(at_))) {
      NumberToken token = read(at_);
      at_ = previous_end_ = token.end;
      return token;
    }
    // "\," and "\\" are one thing, but a digit behind a lone backslash is still a
    // digit.
    const bool pair = at(at_) == '\\' && command.empty() && !is_digit(at(at_ + 1));
    at_ += pair ? 2 : 1 + command.size();
  }
  return std::nullopt;
}

std::optional<Number> last_number(std::string_view plain) {
  NumberScanner scanner(plain);
  std::optional<Number> last;
  while (const auto token = scanner.next()) last = token->number;
  return last;
}

std::optional<Number> read_number(std::string_view text) {
  const std::string plain = plain_text(text);
  NumberScanner scanner(plain, NumberStyle::kAnswer);
  const auto token = scanner.next();
  if (!token || token->begin != 0 || token->end != plain.size()) return std::nullopt;
  return token->number;
}

}  // namespace orrery::actors
