#include "text/jinja_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/ascii.h"
#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr int kMaxJsonDepth = 60;

void append_repr(const Value& value, std::string& out);

void append_sequence(const Sequence& all, std::string& out) {
  const bool tuple = all.kind == SequenceKind::kTuple || all.kind == SequenceKind::kGroup;
  if (all.kind == SequenceKind::kRange) {
    const auto& [start, stop, step] = all.range;
    out += step == 1 ? fmt::format("range({}, {})", start, stop)
                     : fmt::format("range({}, {}, {})", start, stop, step);
    return;
  }
  if (all.kind == SequenceKind::kKeys) out += "dict_keys(";
  if (all.kind == SequenceKind::kValues) out += "dict_values(";
  if (all.kind == SequenceKind::kItems) out += "dict_items(";
  out += tuple ? '(' : '[';
  for (size_t i = 0; i < all.items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(all.items[i], out);
  }
  if (tuple && all.items.size() == 1) out += ',';
  out += tuple ? ')' : ']';
  if (!tuple && all.kind != SequenceKind::kList) out += ')';
}

void append_repr(const Value& value, std::string& out) {
  check_text_size(out.size());
  int64_t whole = 0;
  if (value.is_undefined()) {
    out += "Undefined";
  } else if (value.is_none()) {
    out += "None";
  } else if (const auto* flag = value.as<bool>()) {
    out += *flag ? "True" : "False";
  } else if (value.whole(whole)) {
    out += std::to_string(whole);
  } else if (const double* real = value.real()) {
    out += print_real(*real);
  } else if (const auto* text = value.string()) {
    out += value.is_markup() ? "Markup(" + text_repr(*text) + ")" : text_repr(*text);
  } else if (const Sequence* all = value.sequence()) {
    append_sequence(*all, out);
  } else if (const Dict* dict = value.dict()) {
    out += '{';
    for (size_t i = 0; i < dict->members.size(); ++i) {
      if (i > 0) out += ", ";
      append_repr(dict->members[i].first, out);
      out += ": ";
      append_repr(dict->members[i].second, out);
    }
    out += '}';
  } else if (const Loop* loop = value.loop()) {
    out += fmt::format("<LoopContext {}/{}>", loop->index0 + 1, loop->items.size());
  } else {
    fail_unsupported("printing {} is not supported", value.kind());
  }
}

std::string indentation(const JsonStyle& style, int depth) {
  std::string out = "\n";
  for (int i = 0; i < depth; ++i) out += style.indent;
  return out;
}

void append_json_text(std::string_view text, bool ensure_ascii, std::string& out) {
  out += '"';
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text[at]);
    const uint32_t c = utf8_code_point(text, at);
    constexpr std::string_view kNamed = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const size_t named = c < 0x80 ? kNamed.find(char_of(c)) : std::string_view::npos;
    if (named != std::string_view::npos) {
      out += {'\\', kLetters[named]};
    } else if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
      out += fmt::format("\\u{:04x}", c);
    } else if (ensure_ascii && c >= 0x10000) {
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                         0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
      out += text.substr(at, length);
    }
    at += length;
  }
  out += '"';
}

std::string json_key(const Value& key) {
  int64_t whole = 0;
  if (key.string() != nullptr) return *key.string();
  if (const auto* flag = key.as<bool>()) return *flag ? "true" : "false";
  if (key.is_none()) return "null";
  if (key.whole(whole)) return std::to_string(whole);
  if (key.real() != nullptr) return to_json(key);
  fail("tojson of a dict with a key that is {}", key.kind());
}

void append_json(const Value& value, const JsonStyle& style, int depth, std::string& out);

template <class Items, class Append>
void append_json_items(const Items& items, const JsonStyle& style, int depth, const char* brackets,
                       std::string& out, const Append& append) {
  out += brackets[0];
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += style.item_separator;
    if (style.has_indent) out += indentation(style, depth + 1);
    append(items[i]);
    check_text_size(out.size());
  }
  if (style.has_indent && !items.empty()) out += indentation(style, depth);
  out += brackets[1];
}

void append_json_dict(const Dict& dict, const JsonStyle& style, int depth, std::string& out) {
  Members members = dict.members;
  if (style.sort_keys) {
    for (const auto& [key, value] : members) {
      if (key.string() == nullptr && members.size() > 1)
        fail_unsupported("tojson with sort_keys of keys that are no text is not supported");
    }
    if (members.size() > 1)
      std::stable_sort(members.begin(), members.end(), [](const auto& a, const auto& b) {
        return *a.first.string() < *b.first.string();
      });
  }
  append_json_items(members, style, depth, "{}", out, [&](const auto& member) {
    append_json_text(json_key(member.first), style.ensure_ascii, out);
    out += style.key_separator;
    append_json(member.second, style, depth + 1, out);
  });
}

void append_json(const Value& value, const JsonStyle& style, int depth, std::string& out) {
  int64_t whole = 0;
  if (value.is_none()) {
    out += "null";
  } else if (const auto* flag = value.as<bool>()) {
    out += *flag ? "true" : "false";
  } else if (value.whole(whole)) {
    out += std::to_string(whole);
  } else if (const double* real = value.real()) {
    out += std::isnan(*real)   ? "NaN"
           : std::isinf(*real) ? (*real < 0 ? "-Infinity" : "Infinity")
                               : print_real(*real);
  } else if (const auto* text = value.string()) {
    append_json_text(*text, style.ensure_ascii, out);
  } else if (value.is(SequenceKind::kList) || value.is(SequenceKind::kTuple) ||
             value.is(SequenceKind::kGroup)) {
    append_json_items(*value.items(), style, depth, "[]", out,
                      [&](const Value& item) { append_json(item, style, depth + 1, out); });
  } else if (const Dict* dict = value.dict()) {
    append_json_dict(*dict, style, depth, out);
  } else {
    fail("tojson of {}", value.kind());
  }
}

Value from_json(const nlohmann::ordered_json& json, int depth) {
  if (depth > kMaxJsonDepth) fail("JSON nested deeper than {}", kMaxJsonDepth);
  switch (json.type()) {
    case nlohmann::json::value_t::null:
      return None{};
    case nlohmann::json::value_t::boolean:
      return json.get<bool>();
    case nlohmann::json::value_t::string: {
      const auto& text = json.get_ref<const std::string&>();
      if (find_invalid_utf8(text) != std::string::npos) fail("a text that is not UTF-8");
      return text;
    }
    case nlohmann::json::value_t::number_integer:
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_unsigned:
      if (json.get<uint64_t>() > uint64_t{INT64_MAX})
        fail("the number {} is too large", json.dump());
      return json.get<int64_t>();
    case nlohmann::json::value_t::number_float:
      return json.get<double>();
    case nlohmann::json::value_t::array: {
      List items;
      for (const auto& item : json) items.push_back(from_json(item, depth + 1));
      return Value::list(std::move(items));
    }
    case nlohmann::json::value_t::object: {
      Members members;
      for (const auto& [key, value] : json.items()) {
        if (find_invalid_utf8(key) != std::string::npos) fail("a key that is not UTF-8");
        members.emplace_back(Value(key), from_json(value, depth + 1));
      }
      return Value::dict(std::move(members));
    }
    default:
      fail("a value that JSON does not know");
  }
}

}  // namespace

std::string print_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  const size_t e = text.find('e');
  int exponent = 0;
  std::from_chars(text.data() + e + (text[e + 1] == '+' ? 2 : 1), text.data() + text.size(),
                  exponent);
  std::string digits;
  const bool negative = text[0] == '-';
  for (const char c : text.substr(0, e)) {
    if (is_digit(c)) digits += c;
  }
  std::string out = negative ? "-" : "";
  const int64_t count = std::ssize(digits);
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (count > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? "-" : "+", std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + text_repeat("0", -exponent - 1) + digits;
  if (count <= exponent + 1) return out + digits + text_repeat("0", exponent + 1 - count) + ".0";
  const int64_t whole = exponent + 1;
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string print(const Value& value) {
  if (value.is_undefined()) return "";
  if (const auto* text = value.string()) return *text;
  return repr(value);
}

std::string repr(const Value& value) {
  std::string out;
  append_repr(value, out);
  check_text_size(out.size());
  return out;
}

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  append_json(value, style, 0, out);
  check_text_size(out.size());
  return out;
}

Value from_json(const nlohmann::ordered_json& json) { return from_json(json, 0); }

}  // namespace orrery::text::jinja
