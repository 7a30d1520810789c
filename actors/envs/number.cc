#include "actors/envs/number.h"

#include <algorithm>
#include <vector>

#include "core/ascii.h"

namespace orrery::actors {
namespace {

std::string_view without_leading_zeros(std::string_view digits) {
  return digits.substr(std::min(digits.find_first_not_of('0'), digits.size()));
}

/// Multiplies strings of digits, most significant digit first. The result may have
/// leading zeros.
std::string multiply(std::string_view a, std::string_view b) {
  std::vector<int64_t> sums(a.size() + b.size(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < b.size(); ++j) {
      sums[i + j + 1] += digit_value(a[i]) * digit_value(b[j]);
    }
  }
  std::string result(sums.size(), '0');
  int64_t carry = 0;
  for (size_t i = sums.size(); i-- > 0;) {
    carry += sums[i];
    result[i] = to_digit(carry % 10);
    carry /= 10;
  }
  return result;
}

std::string add(std::string_view a, std::string_view b) {
  std::string result(std::max(a.size(), b.size()) + 1, '0');
  int carry = 0;
  for (size_t i = 0; i < result.size(); ++i) {
    if (i < a.size()) carry += digit_value(a[a.size() - 1 - i]);
    if (i < b.size()) carry += digit_value(b[b.size() - 1 - i]);
    result[result.size() - 1 - i] = to_digit(carry % 10);
    carry /= 10;
  }
  return result;
}

Decimal multiply(const Decimal& a, const Decimal& b) {
  return make_decimal(multiply(a.digits, b.digits), a.exponent + b.exponent);
}

bool less(std::string_view a, std::string_view b) {
  a = without_leading_zeros(a);
  b = without_leading_zeros(b);
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

}  // namespace

Decimal make_decimal(std::string_view digits, int64_t exponent) {
  digits = without_leading_zeros(digits);
  const size_t last = digits.find_last_not_of('0');
  if (last == std::string_view::npos) return {};
  const std::string_view kept = digits.substr(0, last + 1);
  return {std::string(kept), exponent + std::ssize(digits) - std::ssize(kept)};
}

bool operator==(const Number& a, const Number& b) {
  if (a.negative != b.negative) return false;
  if (a.denominator == b.denominator) return a.numerator == b.numerator;
  return multiply(a.numerator, b.denominator) == multiply(b.numerator, a.denominator);
}

std::optional<Number> make_fraction(const Decimal& numerator, const Decimal& denominator) {
  if (denominator.digits.empty()) return std::nullopt;
  if (std::max(numerator.digits.size(), denominator.digits.size()) > kMaxFractionDigits)
    return std::nullopt;
  return Number{false, numerator, denominator};
}

std::optional<Number> make_mixed(std::string_view whole, std::string_view numerator,
                                 std::string_view denominator) {
  constexpr size_t kMaxDigits = kMaxFractionDigits / 2;
  if (std::max({whole.size(), numerator.size(), denominator.size()}) > kMaxDigits)
    return std::nullopt;
  if (!less(numerator, denominator)) return std::nullopt;
  return make_fraction(make_decimal(add(multiply(whole, denominator), numerator), 0),
                       make_decimal(denominator, 0));
}

}  // namespace orrery::actors
