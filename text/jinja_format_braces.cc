// "{}".format(values) (jinja_format.h).
#include <algorithm>
#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_format.h"
#include "text/jinja_format_spec.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

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

  static FormatSpec parse(std::string_view text) {
    FormatSpec spec;
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
    const FormatSpec spec = parse(text);
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

Value format_braces(Machine& machine, const Value& format, const Arguments& arguments) {
  if (format.is_markup()) fail_unsupported("format of text marked safe is not supported");
  return Braces(machine, arguments).run(*format.string(), 0);
}

}  // namespace orrery::text::jinja
