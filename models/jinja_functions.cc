#include "models/jinja_functions.h"

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "models/tokenizer_utf8.h"

namespace orrery::jinja {
namespace {

constexpr size_t kMaxText = size_t{1} << 24;
constexpr size_t kMaxItems = size_t{1} << 20;

/// A few doublings in a loop must not fill the memory.
std::string limited(std::string text) {
  if (text.size() > kMaxText) fail("a text of {} bytes, which is too large", text.size());
  return text;
}

List characters_of(std::string_view text) {
  if (text.size() > kMaxItems) fail("the characters of a text of {} bytes, which is too large", text.size());
  List out;
  for (size_t at = 0; at < text.size(); at += static_cast<size_t>(utf8_length(text[at]))) {
    out.emplace_back(std::string(text.substr(at, static_cast<size_t>(utf8_length(text[at])))));
  }
  return out;
}

int64_t length_of(const Value& value) {
  if (const auto* text = value.string()) {
    return std::count_if(text->begin(), text->end(),
                         [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
  }
  if (const List* items = value.list()) return static_cast<int64_t>(items->size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->members.size());
  fail("{} has no length", value.kind());
}

const std::string& string_of(const Value& value, const char* what) {
  if (value.string() == nullptr) fail("{} wants a string, not {}", what, value.kind());
  return *value.string();
}

int64_t integer_of(const Value& value, const char* what) {
  if (value.integer() == nullptr) fail("{} wants a number, not {}", what, value.kind());
  return *value.integer();
}

const std::string& argument_string(const std::vector<Value>& arguments, size_t index, const char* what) {
  if (index >= arguments.size()) fail("{} wants {} arguments", what, index + 1);
  return string_of(arguments[index], what);
}

/// Python's str.isspace.
bool is_python_space(uint32_t c) { return is_white_space(c) || (c >= 0x1C && c <= 0x1F); }

/// str.strip and its halves; without `characters`, white space.
std::string strip(std::string_view text, const std::optional<std::string>& characters, bool left,
                  bool right) {
  const auto taken = [&](std::string_view character) {
    return characters ? characters->find(character) != std::string::npos
                      : is_python_space(utf8_code_point(character, 0));
  };
  while (left && !text.empty()) {
    const std::string_view first = text.substr(0, static_cast<size_t>(utf8_length(text[0])));
    if (!taken(first)) break;
    text.remove_prefix(first.size());
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!taken(text.substr(begin))) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

Value split(const std::string& text, const std::string& separator, int64_t most) {
  if (separator.empty()) fail("split with an empty separator");
  List parts;
  size_t begin = 0;
  for (size_t at = text.find(separator); at != std::string::npos && (most < 0 || std::ssize(parts) < most);
       at = text.find(separator, begin)) {
    parts.emplace_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.emplace_back(text.substr(begin));
  return Value::list(std::move(parts));
}

std::string replace(const std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) fail("replace of an empty string");
  std::string out;
  size_t begin = 0;
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, begin)) {
    out.append(text, begin, at - begin);
    out += to;
    out = limited(std::move(out));
    begin = at + from.size();
  }
  return out.append(text, begin);
}

std::string change_case(std::string text, bool upper) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) >= 0x80) fail("upper and lower are supported for ASCII text only");
    if (upper && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (!upper && c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

std::string join(const Value& value, const std::string& separator) {
  std::string out;
  const List items = items_of(value);
  for (size_t i = 0; i < items.size(); ++i)
    out = limited(std::move(out) + (i == 0 ? "" : separator) + items[i].print());
  return out;
}

Value pairs_of(const Dict& dict) {
  List pairs;
  for (const auto& [key, value] : dict.members) pairs.push_back(Value::list({Value(key), value}));
  return Value::list(std::move(pairs));
}

Value string_method(const std::string& text, const std::string& name, const std::vector<Value>& arguments) {
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    std::optional<std::string> characters;
    if (!arguments.empty() && !arguments[0].is_none()) characters = argument_string(arguments, 0, "strip");
    return strip(text, characters, name != "rstrip", name != "lstrip");
  }
  if (name == "startswith") return text.starts_with(argument_string(arguments, 0, "startswith"));
  if (name == "endswith") return text.ends_with(argument_string(arguments, 0, "endswith"));
  if (name == "split") {
    return split(text, argument_string(arguments, 0, "split"),
                 arguments.size() > 1 ? integer_of(arguments[1], "split") : -1);
  }
  if (name == "replace" && arguments.size() == 2) {
    return replace(text, argument_string(arguments, 0, "replace"), argument_string(arguments, 1, "replace"));
  }
  if (name == "upper" || name == "lower") return change_case(text, name == "upper");
  fail("the method {} of strings is not supported", name.substr(0, 40));
}

Value dict_method(const Dict& dict, const std::string& name, const std::vector<Value>& arguments) {
  if (name == "items") return pairs_of(dict);
  if (name == "get") {
    const std::string& key = argument_string(arguments, 0, "get");
    for (const auto& member : dict.members) {
      if (member.first == key) return member.second;
    }
    return arguments.size() > 1 ? arguments[1] : Value(None{});
  }
  List out;
  if (name == "keys" || name == "values") {
    for (const auto& [key, value] : dict.members) out.push_back(name == "keys" ? Value(key) : value);
    return Value::list(std::move(out));
  }
  fail("the method {} of dicts is not supported", name.substr(0, 40));
}

bool contains(const Value& container, const Value& value) {
  if (const auto* text = container.string()) return text->find(string_of(value, "in")) != std::string::npos;
  if (const List* items = container.list())
    return std::find(items->begin(), items->end(), value) != items->end();
  if (const Dict* dict = container.dict())
    return value.string() != nullptr && dict->find(*value.string()) != nullptr;
  fail("looking for something in {}", container.kind());
}

int64_t arithmetic(char operation, int64_t left, int64_t right) {
  int64_t result = 0;
  bool overflow = false;
  switch (operation) {
    case '+':
      overflow = __builtin_add_overflow(left, right, &result);
      break;
    case '-':
      overflow = __builtin_sub_overflow(left, right, &result);
      break;
    case '*':
      overflow = __builtin_mul_overflow(left, right, &result);
      break;
    default: {
      if (right == 0 || right == -1) fail("division by {}", right);
      // Python rounds down, C++ towards zero.
      const int64_t remainder = left % right;
      const bool adjust = remainder != 0 && (remainder < 0) != (right < 0);
      result = operation == '/' ? left / right - (adjust ? 1 : 0) : remainder + (adjust ? right : 0);
    }
  }
  if (overflow) fail("a number that is too large");
  return result;
}

Value plus(const Value& left, const Value& right) {
  if (left.string() != nullptr && right.string() != nullptr) return limited(*left.string() + *right.string());
  if (left.list() != nullptr && right.list() != nullptr) {
    if (left.list()->size() + right.list()->size() > kMaxItems) fail("a list that is too large");
    List items = *left.list();
    items.insert(items.end(), right.list()->begin(), right.list()->end());
    return Value::list(std::move(items));
  }
  if (left.integer() != nullptr && right.integer() != nullptr)
    return arithmetic('+', *left.integer(), *right.integer());
  fail("{} + {}", left.kind(), right.kind());
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, const std::vector<Value>& arguments) {
  if (name == "trim" && arguments.empty()) return strip(string_of(value, "trim"), std::nullopt, true, true);
  if (name == "length" || name == "count") return length_of(value);
  if (name == "default" || name == "d") {
    const bool also_falsy = arguments.size() > 1 && arguments[1].truth();
    const Value fallback = arguments.empty() ? Value(std::string()) : arguments[0];
    return value.is_undefined() || (also_falsy && !value.truth()) ? fallback : value;
  }
  if (name == "upper" || name == "lower")
    return change_case(string_of(value, "upper and lower"), name == "upper");
  if (name == "string") return value.print();
  if (name == "safe") return value;
  if (name == "list") return Value::list(items_of(value));
  if (name == "join") return join(value, arguments.empty() ? "" : argument_string(arguments, 0, "join"));
  if (name == "replace" && arguments.size() == 2) {
    return replace(string_of(value, "replace"), argument_string(arguments, 0, "replace"),
                   argument_string(arguments, 1, "replace"));
  }
  if (name == "first" || name == "last") {
    const List items = items_of(value);
    if (items.empty()) return {};
    return name == "first" ? items.front() : items.back();
  }
  if (name == "items") return value.dict() != nullptr ? pairs_of(*value.dict()) : Value::list({});
  fail("the filter {} is not supported", name.substr(0, 40));
}

bool apply_test(const std::string& name, const Value& value, const std::vector<Value>& arguments) {
  const bool is_text = value.string() != nullptr, is_list = value.list() != nullptr,
             is_dict = value.dict() != nullptr;
  const auto* flag = value.as<bool>();
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return is_text;
  if (name == "mapping") return is_dict;
  if (name == "iterable" || name == "sequence") return is_text || is_list || is_dict || value.is_undefined();
  if (name == "number") return value.integer() != nullptr || flag != nullptr;
  if (name == "integer") return value.integer() != nullptr;
  if (name == "boolean") return flag != nullptr;
  if (name == "true") return flag != nullptr && *flag;
  if (name == "false") return flag != nullptr && !*flag;
  if ((name == "eq" || name == "equalto") && arguments.size() == 1) return value == arguments[0];
  if (name == "in" && arguments.size() == 1) return contains(arguments[0], value);
  fail("the test {} is not supported", name.substr(0, 40));
}

Value call_method(const Value& value, const std::string& name, const std::vector<Value>& arguments) {
  if (const auto* text = value.string()) return string_method(*text, name, arguments);
  if (const Dict* dict = value.dict()) return dict_method(*dict, name, arguments);
  fail("calling {} of {}", name.substr(0, 40), value.kind());
}

Value apply_binary(const std::string& operation, const Value& left, const Value& right) {
  if (operation == "==") return left == right;
  if (operation == "!=") return !(left == right);
  if (operation == "in") return contains(right, left);
  if (operation == "~") return limited(left.print() + right.print());
  if (operation == "+") return plus(left, right);
  if (operation[0] == '<' || operation[0] == '>') {
    const bool swap = operation[0] == '>', or_equal = operation.size() == 2;
    const Value &low = swap ? right : left, &high = swap ? left : right;
    if (low.string() != nullptr && high.string() != nullptr) {
      return or_equal ? *low.string() <= *high.string() : *low.string() < *high.string();
    }
    const int64_t a = integer_of(low, "a comparison"), b = integer_of(high, "a comparison");
    return or_equal ? a <= b : a < b;
  }
  return arithmetic(operation[0], integer_of(left, "arithmetic"), integer_of(right, "arithmetic"));
}

Value item_of(const Value& value, const Value& key) {
  if (const Dict* dict = value.dict()) {
    const Value* found = key.string() == nullptr ? nullptr : dict->find(*key.string());
    return found == nullptr ? Value() : *found;
  }
  if (value.is_undefined()) fail("a member of an undefined value");
  if (key.integer() == nullptr || (value.list() == nullptr && value.string() == nullptr)) return {};
  const List characters = value.list() == nullptr ? items_of(value) : List();
  const List& items = value.list() == nullptr ? characters : *value.list();
  const int64_t size = std::ssize(items), index = *key.integer() < 0 ? *key.integer() + size : *key.integer();
  return index < 0 || index >= size ? Value() : items[static_cast<size_t>(index)];
}

Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step) {
  if (value.list() == nullptr && value.string() == nullptr) fail("a slice of {}", value.kind());
  const List items = items_of(value);
  const int64_t size = std::ssize(items);
  const auto absent = [](const Value& part) { return part.is_undefined() || part.is_none(); };
  const int64_t stride = absent(step) ? 1 : integer_of(step, "a slice");
  if (stride == 0) fail("a slice with step 0");
  // Python's rules: negative counts from the end, then clamp to the range the direction allows.
  const int64_t lowest = stride < 0 ? -1 : 0, highest = stride < 0 ? size - 1 : size;
  const auto place = [&](const Value& part, int64_t fallback) {
    if (absent(part)) return fallback;
    const int64_t index = integer_of(part, "a slice");
    return std::clamp(index < 0 ? index + size : index, lowest, highest);
  };
  const int64_t first = place(begin, stride < 0 ? highest : lowest),
                last = place(end, stride < 0 ? lowest : highest);
  List out;
  for (int64_t i = first; stride < 0 ? i > last : i < last; i += stride) {
    out.push_back(items[static_cast<size_t>(i)]);
    if (stride > size || stride < -size) break;
  }
  if (value.list() != nullptr) return Value::list(std::move(out));
  std::string text;
  for (const Value& character : out) text += *character.string();
  return text;
}

List items_of(const Value& value) {
  if (const List* items = value.list()) return *items;
  if (const auto* text = value.string()) return characters_of(*text);
  if (const Dict* dict = value.dict()) {
    List keys;
    for (const auto& member : dict->members) keys.emplace_back(member.first);
    return keys;
  }
  if (value.is_undefined()) return {};
  fail("looping over {}", value.kind());
}

}  // namespace orrery::jinja
