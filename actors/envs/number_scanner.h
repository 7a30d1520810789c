// Finds and reads numbers in text. All functions but read_number() take plain_text():
// ASCII and LaTeX.
//
// These are read as one number: 42, -5, 1,234 (with a comma, {,}, an apostrophe, \, or
// the like between groups of three digits), 2.50, .5, 1e3, 3 \times 10^5, 10^{-2}, 1.5
// million, 4/2, \frac{1}{2}, \frac12, and the mixed numbers 1 1/2 and 1\frac{1}{2}. A
// comma with a space behind it separates two numbers. A minus sign counts unless it
// stands between two operands (7-15).
//
// Digits that are part of something else are not a number: 12:30, 1.2.3, 1/2/2020, 2^5,
// 52_8, 3\sqrt{2}, 2\pi, 5x, 6 - 5i, \sqrt{5}, x/2, \pm 5, 4/0. The scanner reports
// such a token without a value.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "actors/envs/number.h"

namespace orrery::actors {

struct NumberToken {
  size_t begin = 0, end = 0;  ///< includes the sign
  std::optional<Number> number;
};

/// How freely to read.
enum class NumberStyle {
  kProse,
  kAnswer,        ///< also "- 5" at the beginning, "3 / 4" and "1 and 1/2"
  kSpacedGroups,  ///< also "1 234 567"
};

/// Finds the tokens of a text that begin with digits (or a sign, a point or \frac),
/// from left to right. All of them together take time linear in the text's length.
class NumberScanner {
 public:
  explicit NumberScanner(std::string_view plain, NumberStyle style = NumberStyle::kProse)
      : text_(plain), style_(style) {}
  std::optional<NumberToken> next();

 private:
  /// Unsigned digits and what belongs to them: 1,234.5e6.
  struct Part {
    size_t begin = 0, end = 0;
    std::string digits;  // without separators and point
    int64_t exponent = 0;
    bool integer = true;  // no point, no exponent
    bool readable = true;
    Decimal decimal() const { return make_decimal(digits, exponent); }
  };
  /// An unsigned fraction a/b or \frac{a}{b} of integers or decimals.
  struct Fraction {
    size_t end = 0;
    Part numerator, denominator;
    bool negative = false;  // \frac{-1}{2}
  };

  char at(size_t i) const { return i < text_.size() ? text_[i] : '\0'; }
  bool number_begins(size_t i) const;
  Part part(size_t begin);
  void grouped_digits(Part& part) const;
  size_t separator(size_t i) const;
  void exponent(Part& part) const;
  bool power_of_ten(Part& part) const;
  bool scale_word(Part& part) const;
  std::optional<int64_t> integer_exponent(size_t& i) const;
  std::optional<Fraction> slash_fraction(const Part& numerator);
  std::optional<Fraction> latex_fraction(size_t begin);
  std::optional<Part> latex_argument(size_t& i, bool& negative);
  bool mixed(const Part& whole, NumberToken& token);
  NumberToken read(size_t begin);
  size_t signed_begin(size_t begin, bool& negative) const;
  bool operand_before(size_t begin) const;

  std::string_view text_;
  NumberStyle style_;
  size_t at_ = 0, previous_end_ = 0;
};

/// Returns the last token's number; nothing when the text has no token, or when its
/// last token is not a number.
std::optional<Number> last_number(std::string_view plain);

/// Reads all of `text` as one number, as people write it (it need not be plain_text()).
/// For tests and generated problems.
std::optional<Number> read_number(std::string_view text);

}  // namespace orrery::actors
