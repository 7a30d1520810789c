// Exact numbers of any length, as they are compared in answers.
//
// A number is a quotient of two decimals, each kept as digits and a power of ten:
// nothing is rounded, and 1e999999999 costs no memory. Equality is by
// cross-multiplication: 4/2 = 2, 0.5 = 1/2, 1e3 = 1000.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace orrery::actors {

/// digits * 10^exponent. No zeros at either end; zero has no digits.
struct Decimal {
  std::string digits;
  int64_t exponent = 0;
  bool operator==(const Decimal&) const = default;
};

/// "0012" and "50" with exponent -2 make 12.5 out of the digits "001250"; an exponent
/// beyond 10^15 is the caller's error.
Decimal make_decimal(std::string_view digits, int64_t exponent);

struct Number {
  bool negative = false;  ///< never of zero
  Decimal numerator;
  Decimal denominator{"1", 0};  ///< never zero
};

bool operator==(const Number& a, const Number& b);

/// Longest digits of a fraction's parts, so that comparing takes time linear in the
/// other number. 1000 digits are more than anyone writes; a fraction with more is no
/// number.
inline constexpr size_t kMaxFractionDigits = 1000;

/// numerator / denominator; nothing when the denominator is zero or a part is too long.
std::optional<Number> make_fraction(const Decimal& numerator, const Decimal& denominator);

/// whole + numerator / denominator of plain digits. Nothing unless the fraction is less
/// than one.
std::optional<Number> make_mixed(std::string_view whole, std::string_view numerator,
                                 std::string_view denominator);

}  // namespace orrery::actors
