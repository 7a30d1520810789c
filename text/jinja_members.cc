// Attributes, items and methods of values (jinja_operations.h), as Jinja's sandbox lets
// templates see them.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "core/span.h"
#include "text/jinja_error.h"
#include "text/jinja_format.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

template <size_t N>
bool is_one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

constexpr std::array<std::string_view, 47> kStringMethods = {
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill"};
constexpr std::array<std::string_view, 6> kDictMethods = {"get",    "items", "keys",
                                                          "values", "copy",  "fromkeys"};
constexpr std::array<std::string_view, 5> kDictChanges = {"clear", "pop", "popitem", "setdefault",
                                                          "update"};
constexpr std::array<std::string_view, 3> kListMethods = {"index", "count", "copy"};
constexpr std::array<std::string_view, 8> kListChanges = {"append", "clear", "pop",    "reverse",
                                                          "insert", "sort",  "extend", "remove"};
constexpr std::array<std::string_view, 2> kTupleMethods = {"index", "count"};
constexpr std::array<std::string_view, 12> kNumberMembers = {
    "real",       "imag",       "numerator", "denominator",
    "bit_length", "bit_count",  "conjugate", "as_integer_ratio",
    "to_bytes",   "from_bytes", "hex",       "fromhex"};
constexpr std::array<std::string_view, 6> kMacroMembers = {
    "arguments", "catch_kwargs", "catch_varargs", "caller", "name", "explicit_caller"};

Value loop_member(const Value& value, const std::string& name) {
  const Loop& loop = *value.loop();
  const Span items(loop.items);
  const int64_t size = items.size(), at = loop.index0;
  const auto item = [&](int64_t index, const char* none) {
    return index < 0 || index >= size ? Value::undefined(none) : items[index];
  };
  if (name == "index") return at + 1;
  if (name == "index0") return at;
  if (name == "revindex") return size - at;
  if (name == "revindex0") return size - at - 1;
  if (name == "first") return at == 0;
  if (name == "last") return at + 1 == size;
  if (name == "length") return size;
  if (name == "depth") return loop.depth0 + 1;
  if (name == "depth0") return loop.depth0;
  if (name == "previtem") return item(at - 1, "there is no previous item");
  if (name == "nextitem") return item(at + 1, "there is no next item");
  if (has_method(value, name)) {
    return Value::callable("loop." + name,
                           [value, name](Machine& machine, const Arguments& arguments) {
                             return call_method(machine, value, name, arguments);
                           });
  }
  return Value::undefined("loop has no member " + name);
}

/// Gives the value's Python attribute of that name. False when there is none that a
/// template may see.
bool python_attribute(Machine& machine, const Value& value, const std::string& name, Value& out) {
  if (name.starts_with("__"))
    return out = Value::undefined("the attribute " + name + " is not safe"), true;
  if (Namespace* space = value.name_space()) {
    const auto found = space->members.find(name);
    return found != space->members.end() && (out = found->second, true);
  }
  if (value.loop() != nullptr) return out = loop_member(value, name), true;
  if (has_method(value, name)) {
    out = Value::callable(name,
                          [value, name](Machine& m, const Arguments& arguments) {
                            return call_method(m, value, name, arguments);
                          },
                          {value});
    return true;
  }
  const bool changes = (value.dict() != nullptr && is_one_of(kDictChanges, name)) ||
                       (value.is(SequenceKind::kList) && is_one_of(kListChanges, name));
  if (changes) return out = Value::undefined("a template may not change values: " + name), true;
  if (value.is(SequenceKind::kGroup) && (name == "grouper" || name == "list"))
    return out = (*value.items())[name == "list" ? 1 : 0], true;
  if (value.is(SequenceKind::kRange)) {
    static constexpr std::array<std::string_view, 3> kParts = {"start", "stop", "step"};
    const Span range(value.sequence()->range);
    const auto* part = std::find(kParts.begin(), kParts.end(), name);
    if (part != kParts.end()) return out = range[part - kParts.begin()], true;
  }
  double number = 0;
  if ((value.number(number) && is_one_of(kNumberMembers, name)) ||
      (value.callable() != nullptr && is_one_of(kMacroMembers, name)))
    fail_unsupported("the attribute {} of {} is not supported", name, value.kind());
  machine.step();
  return false;
}

Value no_member(const Value& value, const std::string& name) {
  return Value::undefined(fmt::format("{} has no member {}", value.kind(), name.substr(0, 60)));
}

void refuse_member_of_undefined(const Value& value) {
  if (const auto* nothing = value.as<Undefined>())
    fail("{}", nothing->reason == nullptr ? "a member of an undefined value" : *nothing->reason);
}

Value texts(const std::vector<std::string>& parts, SequenceKind kind = SequenceKind::kList) {
  List out;
  for (const std::string& part : parts) out.emplace_back(part);
  return Value::sequence(kind, std::move(out));
}

Value join(Machine& machine, const std::string& separator, const Value& value) {
  std::string out;
  const auto next = iterate(machine, value);
  bool first = true;
  for (Value item; next(item); first = false) {
    if (item.string() == nullptr) fail("join wants strings, not {}", item.kind());
    machine.charge_bytes(item.string()->size() + separator.size());
    if (!first) out += separator;
    out += *item.string();
    check_text_size(out.size());
  }
  return out;
}

/// The part of a text that find, count, startswith and the like search, from their
/// arguments start and end. `begin` becomes the index of its first character. Nullopt
/// when there is no such part, not even an empty one.
std::optional<std::string_view> window(const std::string& text, const Bound& bound,
                                       int64_t& begin) {
  const int64_t size = text_length(text);
  const auto place = [&](int64_t index, int64_t fallback) {
    const int64_t wanted = bound.given(index) ? bound.integer(index, 0) : fallback;
    return wanted < 0 ? std::max<int64_t>(wanted + size, 0) : wanted;
  };
  begin = place(1, 0);
  const int64_t end = std::min(place(2, size), size);
  if (begin > size || begin > end) return std::nullopt;
  const size_t from = text_offset(text, begin);
  return std::string_view(text).substr(
      from, text_offset(std::string_view(text).substr(from), end - begin));
}

Value search_method(Machine& machine, const Value& value, const std::string& name,
                    const Arguments& arguments) {
  const std::string& text = *value.string();
  const Bound bound(name, arguments, {"", "", ""}, 1);
  int64_t begin = 0;
  const auto part = window(text, bound, begin);
  if (name == "startswith" || name == "endswith") {
    const auto matches = [&](const Value& wanted) {
      if (wanted.string() == nullptr) fail("{} wants a string, not {}", name, wanted.kind());
      return part && (name == "startswith" ? part->starts_with(*wanted.string())
                                           : part->ends_with(*wanted.string()));
    };
    if (bound[0].is(SequenceKind::kTuple))
      return std::any_of(bound[0].items()->begin(), bound[0].items()->end(), matches);
    return matches(bound[0]);
  }
  const std::string wanted = bound.text(0, "");
  machine.charge_search(value, bound[0]);
  if (name == "count") {
    int64_t count = 0;
    if (!part) return count;
    if (wanted.empty()) return text_length(*part) + 1;
    for (size_t at = part->find(wanted); at != std::string_view::npos;
         at = part->find(wanted, at + wanted.size()))
      ++count;
    return count;
  }
  const bool from_right = name[0] == 'r';
  const size_t at = !part        ? std::string_view::npos
                    : from_right ? part->rfind(wanted)
                                 : part->find(wanted);
  if (at == std::string_view::npos) {
    if (name.ends_with("index")) fail("{}: the text has no such part", name);
    return int64_t{-1};
  }
  return begin + text_length(part->substr(0, at));
}

Value partition(const std::string& text, const std::string& separator, bool from_right) {
  if (separator.empty()) fail("partition with an empty separator");
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    return from_right ? texts({"", "", text}, SequenceKind::kTuple)
                      : texts({text, "", ""}, SequenceKind::kTuple);
  }
  return texts({text.substr(0, at), separator, text.substr(at + separator.size())},
               SequenceKind::kTuple);
}

Value expand_tabs(const std::string& text, int64_t size) {
  if (size > 1000) fail_unsupported("tabs of {} columns are not supported", size);
  std::string out;
  int64_t column = 0;
  for (const std::string_view character : text_characters(text)) {
    if (character == "\t") {
      const int64_t spaces = size > 0 ? size - column % size : 0;
      out += text_repeat(" ", spaces);
      column += spaces;
    } else {
      out += character;
      column = character == "\n" || character == "\r" ? 0 : column + 1;
    }
    check_text_size(out.size());
  }
  return out;
}

Value padding_method(const std::string& text, const std::string& name, const Arguments& arguments) {
  if (name == "zfill") {
    const Bound bound(name, arguments, {""}, 1);
    const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
    const int64_t missing = bound.integer(0, 0) - text_length(text);
    return (sign ? text.substr(0, 1) : "") + text_repeat("0", missing) + text.substr(sign ? 1 : 0);
  }
  const Bound bound(name, arguments, {"", ""}, 1);
  const std::string fill = bound.text(1, " ");
  if (text_length(fill) != 1) fail("{} fills with one character", name);
  return text_pad(text, bound.integer(0, 0), fill,
                  name == "ljust"   ? '<'
                  : name == "rjust" ? '>'
                                    : '^');
}

Value string_method(Machine& machine, const Value& value, const std::string& name,
                    const Arguments& arguments) {
  const std::string& text = *value.string();
  if (value.is_markup() &&
      (!arguments.positional.empty() || name.find("split") != std::string::npos))
    fail_unsupported("the method {} of text marked safe is not supported", name);
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Bound bound(name, arguments, {""});
    const std::optional<std::string> characters =
        bound.given(0) ? std::optional<std::string>(bound.text(0, "")) : std::nullopt;
    machine.step(characters ? characters->size() * text.size() / 256 : 0);
    return text_strip(text, characters, name != "rstrip", name != "lstrip");
  }
  if (name == "split" || name == "rsplit") {
    const Bound bound(name, arguments, {"sep", "maxsplit"});
    const std::optional<std::string> separator =
        bound.given(0) ? std::optional<std::string>(bound.text(0, "")) : std::nullopt;
    return texts(text_split(text, separator, bound.integer(1, -1), name == "rsplit"));
  }
  if (name == "splitlines")
    return texts(text_splitlines(text, Bound(name, arguments, {"keepends"}).truth(0, false)));
  if (name == "replace") {
    const Bound bound(name, arguments, {"", "", ""}, 2);
    return text_replace(text, bound.text(0, ""), bound.text(1, ""), bound.integer(2, -1));
  }
  if (name == "join") return join(machine, text, Bound(name, arguments, {""}, 1)[0]);
  if (name == "format") return format_braces(machine, value, arguments);
  static constexpr std::array<std::string_view, 7> kSearches = {
      "startswith", "endswith", "count", "find", "rfind", "index", "rindex"};
  if (is_one_of(kSearches, name)) return search_method(machine, value, name, arguments);
  if (name == "partition" || name == "rpartition")
    return partition(text, Bound(name, arguments, {""}, 1).text(0, ""), name == "rpartition");
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string part = Bound(name, arguments, {""}, 1).text(0, "");
    const bool prefix = name == "removeprefix";
    if (!(prefix ? text.starts_with(part) : text.ends_with(part))) return value;
    return prefix ? text.substr(part.size()) : text.substr(0, text.size() - part.size());
  }
  if (name == "center" || name == "ljust" || name == "rjust" || name == "zfill")
    return padding_method(text, name, arguments);
  if (name == "expandtabs")
    return expand_tabs(text, Bound(name, arguments, {"tabsize"}).integer(0, 8));
  static constexpr std::array<std::string_view, 5> kRare = {"encode", "format_map", "maketrans",
                                                            "translate", ""};
  if (is_one_of(kRare, name)) fail_unsupported("the method {} of strings is not supported", name);
  const Bound none(name, arguments, {});
  if (name == "upper") return text_upper(text);
  if (name == "lower") return text_lower(text);
  if (name == "title") return text_title(text);
  if (name == "capitalize") return text_capitalize(text);
  if (name == "casefold") return text_casefold(text);
  if (name == "swapcase") return text_swapcase(text);
  if (const auto answer = text_predicate(name, text)) return *answer;
  fail_unsupported("the method {} of strings is not supported", name.substr(0, 40));
}

Value dict_method(Machine& machine, const Value& value, const std::string& name,
                  const Arguments& arguments) {
  const Dict& dict = *value.dict();
  if (name == "get") {
    const Bound bound(name, arguments, {"", ""}, 1);
    const Value* found = dict.find(bound[0]);
    return found != nullptr ? *found : bound.has(1) ? bound[1] : Value(None{});
  }
  const Bound none(name, arguments, {});
  if (name == "copy") return value;
  if (name == "fromkeys") fail_unsupported("the method fromkeys of dicts is not supported");
  List out;
  machine.step(dict.members.size() / 4);
  for (const auto& [key, member] : dict.members)
    out.push_back(name == "keys" ? key : name == "values" ? member : Value::tuple({key, member}));
  return Value::sequence(name == "keys"     ? SequenceKind::kKeys
                         : name == "values" ? SequenceKind::kValues
                                            : SequenceKind::kItems,
                         std::move(out));
}

Value sequence_method(Machine& machine, const Value& value, const std::string& name,
                      const Arguments& arguments) {
  if (name == "copy") return Bound(name, arguments, {}), value;
  const List& items = *value.items();
  machine.charge_all(value);
  if (name == "count") {
    const Bound bound(name, arguments, {""}, 1);
    machine.charge_all(bound[0]);
    const int64_t count = std::count(items.begin(), items.end(), bound[0]);
    return count;
  }
  const Bound bound(name, arguments, {"", "", ""}, 1);
  if (bound.has(1)) fail_unsupported("index of a part of a list is not supported");
  const auto found = std::find(items.begin(), items.end(), bound[0]);
  if (found == items.end()) fail("index: the list has no such item");
  const int64_t at = found - items.begin();
  return at;
}

Value loop_method(Machine& machine, const Value& value, const std::string& name,
                  const Arguments& arguments) {
  Loop& loop = *value.loop();
  if (!arguments.keywords.empty())
    fail("loop.{} has no argument {}", name, arguments.keywords[0].first);
  const Span given(arguments.positional);
  if (name == "cycle") {
    if (given.empty()) fail("loop.cycle wants values");
    return given[loop.index0 % given.size()];
  }
  for (const Value& item : given) {
    check_no_namespace(item);
    machine.charge_all(item);
  }
  if (loop.called_changed && loop.last_changed == arguments.positional) return false;
  loop.called_changed = true;
  loop.last_changed = arguments.positional;
  return true;
}

}  // namespace

bool has_method(const Value& value, std::string_view name) {
  if (value.string() != nullptr) return is_one_of(kStringMethods, name);
  if (value.dict() != nullptr) return is_one_of(kDictMethods, name);
  if (value.loop() != nullptr) return name == "cycle" || name == "changed";
  if (value.is(SequenceKind::kList)) return is_one_of(kListMethods, name);
  if (value.is(SequenceKind::kTuple) || value.is(SequenceKind::kGroup) ||
      value.is(SequenceKind::kRange))
    return is_one_of(kTupleMethods, name);
  return value.real() != nullptr && name == "is_integer";
}

Value call_method(Machine& machine, const Value& value, const std::string& name,
                  const Arguments& arguments) {
  machine.charge(value);
  machine.charge(arguments);
  if (value.string() != nullptr) {
    Value out = machine.charged(string_method(machine, value, name, arguments));
    return value.is_markup() && out.string() != nullptr ? Value::markup(*out.string()) : out;
  }
  if (value.dict() != nullptr) return machine.charged(dict_method(machine, value, name, arguments));
  if (value.loop() != nullptr) return loop_method(machine, value, name, arguments);
  if (value.items() != nullptr) return sequence_method(machine, value, name, arguments);
  if (value.real() != nullptr) return *value.real() == std::floor(*value.real());
  fail("calling {} of {}", name.substr(0, 40), value.kind());
}

Value call_value(Machine& machine, const Value& callee, const Arguments& arguments) {
  machine.charge(arguments);
  if (const Callable* function = callee.callable())
    return machine.charged(function->call(machine, arguments));
  if (Loop* loop = callee.loop()) {
    const Bound bound("loop", arguments, {"iterable"}, 1);
    if (!loop->recurse) fail("loop(...) is called in a loop that is not recursive");
    return Value(loop->recurse(bound[0]));
  }
  refuse_member_of_undefined(callee);
  fail("calling {}", callee.kind());
}

Value attribute_of(Machine& machine, const Value& value, const std::string& name) {
  refuse_member_of_undefined(value);
  Value out;
  if (python_attribute(machine, value, name, out)) {
    // A dict's member is found only where Python has no attribute of that name.
    if (!out.is_undefined() || !name.starts_with("__") || value.dict() == nullptr) return out;
  }
  if (const Dict* dict = value.dict()) {
    machine.charge(value);
    if (const Value* found = dict->find(std::string_view(name))) return *found;
  }
  return out.is_undefined() && out.as<Undefined>()->reason != nullptr ? out
                                                                      : no_member(value, name);
}

Value item_of(Machine& machine, const Value& value, const Value& key) {
  refuse_member_of_undefined(value);
  if (const Dict* dict = value.dict()) {
    machine.charge(value);
    const bool hashable =
        key.items() == nullptr || key.is(SequenceKind::kTuple) || key.is(SequenceKind::kGroup);
    const Value* found =
        key.dict() != nullptr || !hashable || key.is_undefined() ? nullptr : dict->find(key);
    if (found != nullptr) return *found;
  }
  if (const auto* name = key.string()) {
    Value out;
    return python_attribute(machine, value, *name, out) ? out : no_member(value, *name);
  }
  int64_t index = 0;
  const bool view = value.is(SequenceKind::kKeys) || value.is(SequenceKind::kValues) ||
                    value.is(SequenceKind::kItems);
  if (!key.whole(index) || view || (value.items() == nullptr && value.string() == nullptr))
    return no_member(value, key.is_undefined() ? "" : repr(key));
  if (value.items() != nullptr) {
    const Span items(*value.items());
    if (index < 0) index += items.size();
    if (index < 0 || index >= items.size())
      return Value::undefined("an item behind the end of " + value.kind());
    return items[index];
  }
  machine.charge(value);
  const std::string& text = *value.string();
  const int64_t size = text_length(text);
  if (index < 0) index += size;
  if (index < 0 || index >= size) return Value::undefined("a character behind the end of a text");
  const size_t at = text_offset(text, index);
  return text.substr(at, utf8_length(text[at]));
}

}  // namespace orrery::text::jinja
