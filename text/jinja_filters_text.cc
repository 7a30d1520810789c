// Filters of texts and numbers, and those of any value (jinja_filters.h).
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_filters.h"
#include "text/jinja_format.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr std::array<std::string_view, 28> kTextFilters = {
    "abs",   "attr",   "capitalize",     "center",   "count",       "d",         "default",
    "e",     "escape", "filesizeformat", "float",    "forceescape", "format",    "indent",
    "int",   "length", "lower",          "replace",  "round",       "safe",      "string",
    "title", "tojson", "trim",           "truncate", "upper",       "urlencode", "wordcount"};

/// The value as text, as soft_str of MarkupSafe gives it.
std::string text_of(Machine& machine, const Value& value) {
  machine.charge_all(value);
  return print(value);
}

bool is_letter_or_digit(char c) { return is_letter(c) || is_digit(c); }

std::string plain_digits(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && i + 1 < text.size() && is_letter_or_digit(text[i - 1]) &&
        is_letter_or_digit(text[i + 1]))
      continue;
    out += text[i];
  }
  return out;
}

/// Python's float(text); false where Python raises ValueError.
bool parse_real(std::string_view text, double& out) {
  const std::string stripped =
      plain_digits(text_ascii_digits(text_strip(text, std::nullopt, true, true)));
  std::string_view rest = stripped;
  const bool negative = rest.starts_with('-');
  if (rest.starts_with('-') || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.empty() || rest[0] == '-' || rest[0] == '+') return false;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), out);
  if (end != rest.data() + rest.size() || error == std::errc::invalid_argument) return false;
  if (rest.find('(') != std::string_view::npos) return false;  // nan(...)
  if (error == std::errc::result_out_of_range)
    out = rest.find("e-") != std::string_view::npos ? 0 : INFINITY;
  if (negative) out = -out;
  return true;
}

/// Python's int(text, base); false where Python raises ValueError.
bool parse_whole(std::string_view text, int64_t base, int64_t& out) {
  std::string digits = text_ascii_digits(text_strip(text, std::nullopt, true, true));
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  const auto prefixed = [&](char letter) {
    return digits.size() > 2 && digits[0] == '0' && (digits[1] | 0x20) == letter;
  };
  for (const auto& [letter, meaning] : {std::pair<char, int64_t>{'x', 16}, {'o', 8}, {'b', 2}}) {
    if (prefixed(letter) && (base == meaning || base == 0)) {
      base = meaning;
      digits.erase(0, 2);
      break;
    }
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return false;
  digits = plain_digits(digits);
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return false;
  if (negative) digits.insert(0, "-");
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), out, static_cast<int>(base));
  if (end != digits.data() + digits.size()) return false;
  if (error == std::errc::result_out_of_range)
    fail("the number {} is too large", text.substr(0, 40));
  return error == std::errc();
}

Value to_whole(const Value& value, const Bound& bound) {
  const Value fallback = bound.has(0) ? bound[0] : Value(int64_t{0});
  int64_t whole = 0;
  double real = 0;
  if (value.whole(whole)) return whole;
  if (value.is_undefined()) fail("int of {}", value.kind());
  if (const auto* text = value.string()) {
    if (parse_whole(*text, bound.integer(1, 10), whole)) return whole;
    if (!parse_real(*text, real) || !std::isfinite(real)) return fallback;
  } else if (value.real() != nullptr) {
    real = *value.real();
    if (std::isnan(real)) return fallback;
  } else {
    return fallback;
  }
  if (!(std::abs(real) < 9.2e18)) fail("the number {} is too large", real);
  return static_cast<int64_t>(real);
}

Value to_real(const Value& value, const Bound& bound) {
  double real = 0;
  if (value.is_undefined()) fail("float of {}", value.kind());
  if (value.number(real) || (value.string() != nullptr && parse_real(*value.string(), real)))
    return real;
  return bound.has(0) ? bound[0] : Value(0.0);
}

Value rounded(const Value& value, const Bound& bound) {
  const int64_t precision = bound.integer(0, 0);
  const std::string method = bound.text(1, "common");
  int64_t whole = 0;
  double real = 0;
  if (!value.number(real)) fail("round of {}", value.kind());
  if (precision < 0 || precision > 300)
    fail_unsupported("round to {} digits is not supported", precision);
  if (method == "common") {
    if (value.whole(whole)) return whole;
    if (!std::isfinite(real)) return real;
    double out = 0;
    parse_real(format_real(real, 'f', precision), out);
    return out;
  }
  if (method != "ceil" && method != "floor") fail("round: method must be common, ceil or floor");
  const double scale = std::pow(10.0, precision), scaled = real * scale;
  if (!(std::abs(scaled) < 9e15))
    fail_unsupported("round of {} by {} is not supported", real, method);
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale + 0.0;
}

std::string indented(const std::string& text, const Bound& bound) {
  const std::string indention = bound.has(0) && bound[0].string() != nullptr
                                    ? *bound[0].string()
                                    : text_repeat(" ", bound.integer(0, 4));
  const bool first = bound.truth(1, false), blank = bound.truth(2, false);
  const std::vector<std::string> lines = text_splitlines(text + "\n", false);
  std::string out = first ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += "\n";
    if (i > 0 && (blank || !lines[i].empty())) out += indention;
    out += lines[i];
    check_text_size(out.size());
  }
  return out;
}

Value truncated(const Value& value, const Bound& bound) {
  const int64_t length = bound.integer(0, 255), leeway = bound.given(3) ? bound.integer(3, 5) : 5;
  const std::string end = bound.text(2, "...");
  if (length < text_length(end) || leeway < 0) fail("truncate to {} characters", length);
  if (length_of(value) <= length + leeway) return value;
  if (value.string() == nullptr) fail("truncate of {}", value.kind());
  const std::string& text = *value.string();
  const std::string kept = text.substr(0, text_offset(text, length - text_length(end)));
  if (bound.truth(1, false)) return kept + end;
  return text_split(kept, " ", 1, true)[0] + end;
}

std::string file_size(const Value& value, bool binary) {
  double bytes = 0;
  if (!value.number(bytes) && !(value.string() != nullptr && parse_real(*value.string(), bytes)))
    fail("filesizeformat of {}", value.kind());
  const double base = binary ? 1024 : 1000;
  static constexpr std::string_view kLetters = "KMGTPEZY";
  if (bytes == 1) return "1 Byte";
  if (bytes < base) return fmt::format("{} Bytes", static_cast<int64_t>(bytes));
  double unit = base;
  size_t at = 0;
  for (; at < kLetters.size(); ++at) {
    unit *= base;
    if (bytes < unit) break;
  }
  at = std::min(at, kLetters.size() - 1);
  const std::string prefix = binary ? std::string(1, kLetters[at]) + "iB"
                                    : std::string(1, at == 0 ? 'k' : kLetters[at]) + "B";
  return format_real(base * bytes / unit, 'f', 1) + " " + prefix;
}

std::string url_quoted(std::string_view text, bool query) {
  std::string out;
  for (const char c : text) {
    const bool safe = is_letter_or_digit(c) || c == '_' || c == '.' || c == '-' || c == '~' ||
                      (c == '/' && !query);
    if (safe) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", byte_of(c));
    }
  }
  check_text_size(out.size());
  return out;
}

std::string url_encoded(Machine& machine, const Value& value) {
  if (value.string() != nullptr || !is_iterable(value))
    return url_quoted(text_of(machine, value), false);
  List pairs;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, member] : dict->members) pairs.push_back(Value::tuple({key, member}));
  } else {
    pairs = items_of(machine, value);
  }
  std::string out;
  for (const Value& pair : pairs) {
    const List parts = items_of(machine, pair);
    if (parts.size() != 2) fail("urlencode wants pairs");
    out += (out.empty() ? "" : "&") + url_quoted(text_of(machine, parts[0]), true) + "=" +
           url_quoted(text_of(machine, parts[1]), true);
    check_text_size(out.size());
  }
  return out;
}

int64_t word_count(const std::string& text) {
  int64_t count = 0;
  bool inside = false;
  for (const std::string_view character : text_characters(text)) {
    const bool word = character == "_" || *text_predicate("isalnum", character);
    count += word && !inside ? 1 : 0;
    inside = word;
  }
  return count;
}

std::string json_of(Machine& machine, const Value& value, const Bound& bound) {
  JsonStyle style;
  style.ensure_ascii = bound.truth(0, false);
  style.sort_keys = bound.truth(3, false);
  if (bound.given(1)) {
    constexpr int64_t kMaxIndent = 100;
    style.has_indent = true;
    style.indent =
        bound[1].string() != nullptr
            ? *bound[1].string()
            : text_repeat(" ", std::clamp<int64_t>(bound.integer(1, 0), 0, kMaxIndent + 1));
    if (style.indent.size() > kMaxIndent)
      fail_unsupported("tojson with an indent above {} is not supported", kMaxIndent);
    style.item_separator = ",";
  }
  if (bound.given(2)) {
    const List parts = items_of(machine, bound[2]);
    if (parts.size() != 2 || parts[0].string() == nullptr || parts[1].string() == nullptr)
      fail("tojson wants two texts as separators");
    style.item_separator = *parts[0].string();
    style.key_separator = *parts[1].string();
  }
  machine.charge_all(value);
  return to_json(value, style);
}

Value attribute_filter(Machine& machine, const Value& value, const Bound& bound) {
  if (bound[0].string() == nullptr) fail("attr wants a name, not {}", bound[0].kind());
  // The filter reads attributes only, never items.
  if (value.dict() != nullptr && !has_method(value, *bound[0].string()))
    return Value::undefined("a dict has no attribute " + *bound[0].string());
  return attribute_of(machine, value, *bound[0].string());
}

Value escaped(Machine& machine, const Value& value, bool again) {
  if (value.is_markup() && !again) return value;
  return Value::markup(text_escape(text_of(machine, value)));
}

Value text_filter(Machine& machine, const std::string& name, const Value& value,
                  const Arguments& arguments) {
  if (name == "default" || name == "d") {
    const Bound bound(name, arguments, {"default_value", "boolean"});
    const bool missing = value.is_undefined() || (bound.truth(1, false) && !value.truth());
    return missing ? (bound.has(0) ? bound[0] : Value(std::string())) : value;
  }
  if (name == "tojson")
    return json_of(machine, value,
                   Bound(name, arguments, {"ensure_ascii", "indent", "separators", "sort_keys"}));
  if (name == "trim") {
    const Bound bound(name, arguments, {"chars"});
    const std::optional<std::string> characters =
        bound.given(0) ? std::optional<std::string>(bound.text(0, "")) : std::nullopt;
    const std::string text = text_of(machine, value);
    machine.step(characters ? characters->size() * text.size() / 256 : 0);
    return text_strip(text, characters, true, true);
  }
  if (name == "replace") {
    const Bound bound(name, arguments, {"old", "new", "count"}, 2);
    const std::string text = text_of(machine, value), from = text_of(machine, bound[0]);
    machine.charge_search(Value(text), Value(from));
    return text_replace(text, from, text_of(machine, bound[1]),
                        bound.given(2) ? bound.integer(2, -1) : -1);
  }
  if (name == "indent") {
    const Bound bound(name, arguments, {"width", "first", "blank"});
    if (value.string() == nullptr) fail("indent of {}", value.kind());
    return indented(*value.string(), bound);
  }
  if (name == "int") return to_whole(value, Bound(name, arguments, {"default", "base"}));
  if (name == "float") return to_real(value, Bound(name, arguments, {"default"}));
  if (name == "round") return rounded(value, Bound(name, arguments, {"precision", "method"}));
  if (name == "truncate")
    return truncated(value, Bound(name, arguments, {"length", "killwords", "end", "leeway"}));
  if (name == "filesizeformat")
    return file_size(value, Bound(name, arguments, {"binary"}).truth(0, false));
  if (name == "attr") return attribute_filter(machine, value, Bound(name, arguments, {"name"}, 1));
  if (name == "format") {
    if (!arguments.positional.empty() && !arguments.keywords.empty())
      fail("format takes positional or keyword arguments, not both");
    Members members;
    for (const auto& [key, member] : arguments.keywords) members.emplace_back(Value(key), member);
    return format_percent(
        machine, Value(text_of(machine, value)),
        members.empty() ? Value::tuple(arguments.positional) : Value::dict(std::move(members)));
  }
  if (name == "center") {
    const Bound bound(name, arguments, {"width"});
    return text_pad(text_of(machine, value), bound.integer(0, 80), " ", '^');
  }
  const Bound none(name, arguments, {});
  if (name == "length" || name == "count") return length_of(value);
  if (name == "string") return value.string() != nullptr ? value : Value(text_of(machine, value));
  if (name == "safe") return Value::markup(text_of(machine, value));
  if (name == "e" || name == "escape") return escaped(machine, value, false);
  if (name == "forceescape") return escaped(machine, value, true);
  if (name == "urlencode") return url_encoded(machine, value);
  if (name == "abs") {
    int64_t whole = 0;
    if (value.whole(whole)) return whole < 0 ? negative(whole) : Value(whole);
    if (value.real() == nullptr) fail("abs of {}", value.kind());
    return std::abs(*value.real());
  }
  const std::string text = text_of(machine, value);
  if (name == "upper") return text_upper(text);
  if (name == "lower") return text_lower(text);
  if (name == "title") return text_title_words(text);
  if (name == "capitalize") return text_capitalize(text);
  if (name == "wordcount") return word_count(text);
  fail_unsupported("the filter {} is not supported", name);
}

}  // namespace

bool is_text_filter(std::string_view name) {
  return !name.empty() &&
         std::find(kTextFilters.begin(), kTextFilters.end(), name) != kTextFilters.end();
}

bool apply_text_filter(Machine& machine, const std::string& name, const Value& value,
                       const Arguments& arguments, Value& out) {
  if (!is_text_filter(name)) return false;
  out = text_filter(machine, name, value, arguments);
  static constexpr std::array<std::string_view, 7> kKeepMarkup = {
      "trim", "upper", "lower", "capitalize", "center", "indent", "truncate"};
  if (value.is_markup() &&
      std::find(kKeepMarkup.begin(), kKeepMarkup.end(), name) != kKeepMarkup.end())
    out = Value::markup(*out.string());
  return true;
}

}  // namespace orrery::text::jinja
