#include "text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kMaxWidth = 1'000'000;
constexpr int64_t kMaxPrecision = 300;

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

/// A format specification: the characters between % and its letter, or after the colon
/// in {}.
struct Spec {
  std::string fill = " ";
  char alignment = 0;  // one of < > ^ =, or 0 for the default
  char sign = '-';     // one of + - and space
  bool alternate = false, zero = false;
  char grouping = 0;
  int64_t width = 0;
  int64_t precision = -1;
  char kind = 0;
};

std::string sign_of(bool negative, char style) {
  return negative ? "-" : style == '-' ? "" : std::string(1, style);
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

/// Joins a number's sign, prefix and digits and pads them to the width.
std::string padded_number(const std::string& sign, std::string digits, const Spec& spec) {
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

std::string real_digits(double value, const Spec& spec, char kind) {
  const double positive = std::abs(value);
  if (!std::isfinite(value)) {
    const bool capital = is_upper(kind);
    return std::isnan(value) ? (capital ? "NAN" : "nan") : (capital ? "INF" : "inf");
  }
  return format_real(positive, kind, spec.precision < 0 ? 6 : spec.precision, spec.alternate);
}

std::string whole_digits(int64_t value, const Spec& spec, std::string& sign) {
  const unsigned base = spec.kind == 'x' || spec.kind == 'X' ? 16
                        : spec.kind == 'o'                   ? 8
                        : spec.kind == 'b'                   ? 2
                                                             : 10;
  if (spec.alternate && base != 10) sign += std::string("0") + spec.kind;
  return in_base(magnitude_of(value), base, spec.kind == 'X');
}

// ---- "%s" % values

class Percent {
 public:
  Percent(Machine& machine, const std::string& format, const Value& values)
      : machine_(machine), format_(format), values_(values) {
    const bool tuple = values.is(SequenceKind::kTuple) || values.is(SequenceKind::kGroup);
    if (tuple) {
      items_ = *values.items();
    } else {
      items_ = {values};
    }
    is_tuple_ = tuple;
  }

  std::string run() {
    std::string out;
    while (at_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      out.append(format_, at_, percent - at_);
      at_ = percent;
      if (at_ == format_.size()) break;
      ++at_;
      out += directive();
      check_text_size(out.size());
      machine_.step();
    }
    const bool named = used_names_ || values_.dict() != nullptr || values_.items() != nullptr ||
                       values_.is_undefined();
    if (next_ < items_.size() && !(named && !is_tuple_))
      fail("not all values of % are used by the text");
    return out;
  }

 private:
  char peek() const {
    if (at_ >= format_.size()) fail("the text of % ends inside a directive");
    return format_[at_];
  }

  Value take() {
    if (next_ >= items_.size()) fail("not enough values for the text of %");
    return items_[next_++];
  }

  int64_t number(int64_t most) {
    int64_t out = 0;
    if (peek() == '*') {
      ++at_;
      const Value value = take();
      if (!value.whole(out) || out < 0) fail("* in the text of % wants a whole number");
    } else {
      while (is_digit(peek()) && out <= most) out = out * 10 + digit_value(format_[at_++]);
    }
    if (out > most) fail_unsupported("a width or precision above {} is not supported", most);
    return out;
  }

  std::string directive() {
    Spec spec;
    bool left = false;
    Value value;
    bool has_value = false;
    if (peek() == '(') {
      const size_t close = format_.find(')', at_);
      if (close == std::string::npos) fail("the text of % ends inside a name");
      if (values_.dict() == nullptr) fail("%(name) wants a dict, not {}", values_.kind());
      const Value* found =
          values_.dict()->find(std::string_view(format_).substr(at_ + 1, close - at_ - 1));
      if (found == nullptr)
        fail("% finds no {} in the dict", format_.substr(at_ + 1, close - at_ - 1));
      value = *found;
      has_value = used_names_ = true;
      at_ = close + 1;
    }
    for (;; ++at_) {
      const char c = peek();
      if (c == '-') {
        left = true;
      } else if (c == '+') {
        spec.sign = '+';
      } else if (c == ' ') {
        if (spec.sign == '-') spec.sign = ' ';
      } else if (c == '0') {
        spec.zero = true;
      } else if (c == '#') {
        spec.alternate = true;
      } else {
        break;
      }
    }
    spec.width = number(kMaxWidth);
    if (peek() == '.') {
      ++at_;
      spec.precision = number(kMaxPrecision);
    }
    spec.kind = peek();
    ++at_;
    if (spec.kind == '%') return "%";
    if (left) {
      spec.alignment = '<';
      spec.zero = false;
    }
    return convert(has_value ? value : take(), spec);
  }

  std::string convert(const Value& value, const Spec& spec) {
    machine_.charge_all(value);
    if (spec.kind == 's' || spec.kind == 'r' || spec.kind == 'a') {
      if (spec.kind == 'a') fail_unsupported("%a is not supported");
      std::string text = spec.kind == 's' ? print(value) : repr(value);
      if (spec.precision >= 0) text.resize(text_offset(text, spec.precision));
      return text_pad(text, spec.width, " ", spec.alignment == 0 ? '>' : '<');
    }
    int64_t whole = 0;
    double real = 0;
    switch (spec.kind) {
      case 'd':
      case 'i':
      case 'u':
        if (!value.whole(whole)) {
          if (value.real() == nullptr || !(std::abs(*value.real()) < 9.2e18))
            fail("%{} wants a number, not {}", spec.kind, value.kind());
          whole = static_cast<int64_t>(*value.real());
        }
        break;
      case 'x':
      case 'X':
      case 'o':
        if (!value.whole(whole)) fail("%{} wants a whole number, not {}", spec.kind, value.kind());
        break;
      case 'c': {
        if (value.string() != nullptr && text_length(*value.string()) == 1)
          return text_pad(*value.string(), spec.width, " ", spec.alignment == 0 ? '>' : '<');
        if (!value.whole(whole) || whole < 0 || whole > 0x10FFFF ||
            (whole >= 0xD800 && whole < 0xE000))
          fail("%c wants one character");
        std::string out;
        append_utf8(static_cast<uint32_t>(whole), out);
        return text_pad(out, spec.width, " ", spec.alignment == 0 ? '>' : '<');
      }
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': {
        if (!value.number(real)) fail("%{} wants a number, not {}", spec.kind, value.kind());
        Spec plain = spec;
        if (!std::isfinite(real)) plain.zero = false;
        return padded_number(sign_of(std::signbit(real) && !std::isnan(real), spec.sign),
                             real_digits(real, spec, spec.kind), plain);
      }
      default:
        fail_unsupported("%{} is not supported", spec.kind);
    }
    std::string sign = sign_of(whole < 0, spec.sign);
    std::string digits = whole_digits(whole, spec, sign);
    digits.insert(0, text_repeat("0", spec.precision - std::ssize(digits)));
    return padded_number(sign, digits, spec);
  }

  Machine& machine_;
  const std::string& format_;
  const Value& values_;
  List items_;
  bool is_tuple_ = false, used_names_ = false;
  size_t at_ = 0, next_ = 0;
};

// ---- "{}".format(values)

class Braces {
 public:
  Braces(Machine& machine, const Arguments& arguments) : machine_(machine), arguments_(arguments) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 1) fail("format: fields nested too deep");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at];
      if (c != '{' && c != '}') {
        out += c;
        ++at;
      } else if (at + 1 < format.size() && format[at + 1] == c) {
        out += c;
        at += 2;
      } else if (c == '}') {
        fail("format: a single }} in the text");
      } else {
        const size_t end = field_end(format, at);
        out += field(format.substr(at + 1, end - at - 1), depth);
        at = end + 1;
      }
      check_text_size(out.size());
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view format, size_t at) {
    int depth = 0;
    for (; at < format.size(); ++at) {
      if (format[at] == '{') ++depth;
      if (format[at] == '}' && --depth == 0) return at;
    }
    fail("format: a {{ without its }}");
  }

  std::string field(std::string_view text, int depth) {
    machine_.step();
    const size_t name_end = std::min(text.find_first_of("!:"), text.size());
    const Value value = lookup(text.substr(0, name_end));
    text.remove_prefix(name_end);
    char conversion = 0;
    if (text.starts_with('!')) {
      if (text.size() < 2 || (text.size() > 2 && text[2] != ':'))
        fail("format: a conversion that is not one letter");
      conversion = text[1];
      text.remove_prefix(2);
    }
    const std::string spec = text.starts_with(':') ? run(text.substr(1), depth + 1) : "";
    machine_.charge_all(value);
    if (conversion == 'r') return with_spec(Value(repr(value)), spec);
    if (conversion == 's') return with_spec(Value(print(value)), spec);
    if (conversion != 0)
      fail_unsupported("format: the conversion !{} is not supported", conversion);
    return with_spec(value, spec);
  }

  Value lookup(std::string_view name) {
    size_t at = std::min(name.find_first_of(".["), name.size());
    const std::string first(name.substr(0, at));
    const bool number =
        !first.empty() && first.find_first_not_of("0123456789") == std::string::npos;
    Value value;
    if (first.empty() || number) {
      if (first.size() > 6) fail("format: an index that is too large");
      if (first.empty() == (numbering_ == 2) && numbering_ != 0)
        fail("format: {{}} and {{0}} in one text");
      numbering_ = first.empty() ? 1 : 2;
      const size_t index = first.empty() ? next_++ : std::stoul(first);
      if (index >= arguments_.positional.size()) fail("format: there is no argument {}", index);
      value = arguments_.positional[index];
    } else {
      bool found = false;
      for (const auto& [keyword, given] : arguments_.keywords) {
        if (keyword == first) value = given, found = true;
      }
      if (!found) fail("format: there is no argument {}", first.substr(0, 40));
    }
    while (at < name.size()) {
      if (name[at] == '.') {
        const size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        value = attribute_of(machine_, value, std::string(name.substr(at + 1, end - at - 1)));
        at = end;
      } else if (name[at] == '[') {
        const size_t end = name.find(']', at);
        if (end == std::string_view::npos) fail("format: a [ without its ]");
        const std::string key(name.substr(at + 1, end - at - 1));
        const bool index = !key.empty() && key.size() < 10 &&
                           key.find_first_not_of("0123456789") == std::string::npos;
        value = item_of(machine_, value, index ? Value(int64_t{std::stoll(key)}) : Value(key));
        at = end + 1;
      } else {
        fail("format: only . and [ may follow ]");
      }
    }
    return value;
  }

  static Spec parse(std::string_view text) {
    Spec spec;
    const auto is_alignment = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
    if (!text.empty()) {
      const size_t length = utf8_length(text[0]);
      if (text.size() > length && is_alignment(text[length])) {
        spec.fill = text.substr(0, length);
        spec.alignment = text[length];
        text.remove_prefix(length + 1);
      } else if (is_alignment(text[0])) {
        spec.alignment = text[0];
        text.remove_prefix(1);
      }
    }
    const auto accept = [&](std::string_view any) {
      if (text.empty() || any.find(text[0]) == std::string_view::npos) return char{0};
      const char c = text[0];
      text.remove_prefix(1);
      return c;
    };
    if (const char c = accept("+- ")) spec.sign = c;
    spec.alternate = accept("#") != 0;
    spec.zero = accept("0") != 0;
    const auto number = [&](int64_t most) {
      int64_t out = 0;
      while (const char c = accept("0123456789")) {
        out = out * 10 + digit_value(c);
        if (out > most) fail_unsupported("a width or precision above {} is not supported", most);
      }
      return out;
    };
    spec.width = number(kMaxWidth);
    spec.grouping = accept(",_");
    if (accept(".") != 0) spec.precision = number(kMaxPrecision);
    if (!text.empty()) spec.kind = accept("sdxXobeEfFgG%");
    if (!text.empty())
      fail_unsupported("format: the specification {} is not supported", text.substr(0, 20));
    return spec;
  }

  static std::string with_spec(const Value& value, const std::string& text) {
    if (text.empty()) return print(value);
    const Spec spec = parse(text);
    int64_t whole = 0;
    double real = 0;
    if (value.string() != nullptr) {
      if ((spec.kind != 0 && spec.kind != 's') || spec.alignment == '=' || spec.sign != '-' ||
          spec.grouping != 0)
        fail("format: a string with the specification {}", text.substr(0, 20));
      std::string out = *value.string();
      if (spec.precision >= 0) out.resize(text_offset(out, spec.precision));
      return text_pad(out, spec.width, spec.zero && spec.alignment == 0 ? "0" : spec.fill,
                      spec.alignment == 0 ? '<' : spec.alignment);
    }
    const bool real_kind =
        spec.kind != 0 && std::string_view("eEfFgG%").find(spec.kind) != std::string_view::npos;
    if (value.whole(whole) && !real_kind) {
      if (value.as<bool>() != nullptr && spec.kind == 0)
        fail_unsupported("format of a boolean with a specification is not supported");
      if (spec.precision >= 0) fail("format: a precision for a whole number");
      std::string sign = sign_of(whole < 0, spec.sign);
      const std::string digits = whole_digits(whole, spec, sign);
      return padded_number(sign, digits, spec);
    }
    if (!value.number(real))
      fail_unsupported("format of {} with a specification is not supported", value.kind());
    if (!real_kind && (spec.precision >= 0 || spec.kind != 0))
      fail_unsupported("format: the specification {} is not supported", text.substr(0, 20));
    const std::string sign = sign_of(std::signbit(real) && !std::isnan(real), spec.sign);
    if (!real_kind) return padded_number(sign, print_real(std::abs(real)), spec);
    if (spec.kind == '%')
      return padded_number(sign, real_digits(real * 100, spec, 'f') + "%", spec);
    return padded_number(sign, real_digits(real, spec, spec.kind), spec);
  }

  Machine& machine_;
  const Arguments& arguments_;
  size_t next_ = 0;
  int numbering_ = 0;  // 1 after a {}, 2 after a {0}; a text may not mix them
};

}  // namespace

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

Value format_percent(Machine& machine, const Value& format, const Value& values) {
  if (format.is_markup()) fail_unsupported("% on text marked safe is not supported");
  return Percent(machine, *format.string(), values).run();
}

Value format_braces(Machine& machine, const Value& format, const Arguments& arguments) {
  if (format.is_markup()) fail_unsupported("format of text marked safe is not supported");
  return Braces(machine, arguments).run(*format.string(), 0);
}

}  // namespace orrery::text::jinja
