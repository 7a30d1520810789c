// "%s" % values (jinja_format.h).
#include <algorithm>
#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_format.h"
#include "text/jinja_format_spec.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

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
    FormatSpec spec;
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

  std::string convert(const Value& value, const FormatSpec& spec) {
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
        FormatSpec plain = spec;
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

}  // namespace

Value format_percent(Machine& machine, const Value& format, const Value& values) {
  if (format.is_markup()) fail_unsupported("% on text marked safe is not supported");
  return Percent(machine, *format.string(), values).run();
}

}  // namespace orrery::text::jinja
