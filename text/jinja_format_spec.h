// What both ways to format share: a specification, and numbers written by it. Internal
// to jinja_format.h.
#pragma once

#include <cstdint>
#include <string>

namespace orrery::text::jinja {

/// The largest width and precision that are supported.
inline constexpr int64_t kMaxWidth = 1'000'000;
inline constexpr int64_t kMaxPrecision = 300;

/// A format specification: the characters between % and its letter, or after the colon
/// in {}.
struct FormatSpec {
  std::string fill = " ";
  char alignment = 0;  // one of < > ^ =, or 0 for the default
  char sign = '-';     // one of + - and space
  bool alternate = false, zero = false;
  char grouping = 0;
  int64_t width = 0;
  int64_t precision = -1;
  char kind = 0;
};

/// The sign before a number, in a specification's `sign` style.
std::string sign_of(bool negative, char style);
/// The digits of |value|; `kind` is one of e f g and their capitals. Infinity and NaN
/// are words.
std::string real_digits(double value, const FormatSpec& spec, char kind);
/// The digits of |value| in the base of spec.kind. The prefix of the base, where the
/// specification asks for it, is appended to `sign`.
std::string whole_digits(int64_t value, const FormatSpec& spec, std::string& sign);
/// Joins a number's sign, prefix and digits and pads them to the width.
std::string padded_number(const std::string& sign, std::string digits, const FormatSpec& spec);

}  // namespace orrery::text::jinja
