// Exact numbers of any length, for comparing answers.
//
// A number is a quotient of two decimals, each kept as digits and a power of ten, so
// nothing is rounded and 1e999999999 costs no memory. Numbers are compared by
// cross-multiplication: 4/2 = 2, 0.5 = 1/2, 1e3 = 1000.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace orrery::actors {

/// digits * 10^exponent. The digits have no zeros at either end, and zero has no
/// digits.
struct Decimal {
  std::string digits;
  int64_t exponent = 0;
  bool operator==(const Decimal&) const = default;
};

/// Returns digits * 10^exponent: the digits "001250" with exponent -2 are 12.5.
/// REQUIRES: the exponent is at most 10^15 in size.
Decimal make_decimal(std::string_view digits, int64_t exponent);

struct Number {
  bool negative = false;  ///< false for zero
  Decimal numerator;
  Decimal denominator{"1", 0};  ///< never zero
};

bool operator==(const Number& a, const Number& b);

/// The most digits in a fraction's parts, so that comparing takes time linear in the
/// length of the other number. Nobody writes more than 1000 digits; a fraction with
/// more is not read as a number.
inline constexpr size_t kMaxFractionDigits = 1000;

/// Returns numerator / denominator; nothing when the denominator is zero or a part is
/// too long.
std::optional<Number> make_fraction(const Decimal& numerator, const Decimal& denominator);

/// Returns whole + numerator / denominator, all given as plain digits; nothing unless
/// the fraction is less than one.
std::optional<Number> make_mixed(std::string_view whole, std::string_view numerator,
                                 std::string_view denominator);

}  // namespace orrery::actors
