// Numbers as both ways to format write them.
#include "text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/ascii.h"
#include "text/jinja_error.h"
#include "text/jinja_format_spec.h"
#include "text/jinja_text.h"

namespace orrery::text::jinja {
namespace {

std::string in_base(uint64_t magnitude, unsigned base, bool capital) {
  std::string out;
  do {
    out += (capital ? "0123456789ABCDEF" : "0123456789abcdef")[magnitude % base];
    magnitude /= base;
  } while (magnitude != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

uint64_t magnitude_of(int64_t value) {
  const uint64_t bits = value;
  return value < 0 ? ~bits + 1 : bits;
}

std::string grouped(const std::string& digits, char separator) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % 3 == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(whole);
}

}  // namespace

std::string sign_of(bool negative, char style) {
  return negative ? "-" : style == '-' ? "" : std::string(1, style);
}

std::string padded_number(const std::string& sign, std::string digits, const FormatSpec& spec) {
  if (spec.grouping != 0) {
    if (spec.zero || spec.alignment == '=')
      fail_unsupported("a number with separators and zeros in front is not supported");
    digits = grouped(digits, spec.grouping);
  }
  if (spec.alignment == '=' || (spec.zero && spec.alignment == 0)) {
    const int64_t missing = spec.width - std::ssize(sign) - std::ssize(digits);
    return sign + text_repeat(spec.zero && spec.alignment == 0 ? "0" : spec.fill, missing) + digits;
  }
  return text_pad(sign + digits, spec.width, spec.fill, spec.alignment == 0 ? '>' : spec.alignment);
}

std::string real_digits(double value, const FormatSpec& spec, char kind) {
  const double positive = std::abs(value);
  if (!std::isfinite(value)) {
    const bool capital = is_upper(kind);
    return std::isnan(value) ? (capital ? "NAN" : "nan") : (capital ? "INF" : "inf");
  }
  return format_real(positive, kind, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
}

std::string whole_digits(int64_t value, const FormatSpec& spec, std::string& sign) {
  const unsigned base = spec.kind == 'x' || spec.kind == 'X' ? 16
                        : spec.kind == 'o'                   ? 8
                        : spec.kind == 'b'                   ? 2
                                                             : 10;
  if (spec.alternate && base != 10) sign += std::string("0") + spec.kind;
  return in_base(magnitude_of(value), base, spec.kind == 'X');
}

std::string format_real(double value, char kind, int64_t precision, bool alternate) {
  const std::string pattern = std::string("%") + (alternate ? "#" : "") + ".*" + kind;
  std::string out(512, '\0');
  const auto write = [&]() -> int64_t {
    return std::snprintf(out.data(), out.size(), pattern.c_str(), static_cast<int>(precision),
                         value);
  };
  const int64_t size = write();
  if (size >= std::ssize(out)) {
    out.resize(size + 1);
    write();
  }
  out.resize(size);
  return out;
}

}  // namespace orrery::text::jinja
