#include "text/jinja_filters.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/error.h"
#include "text/jinja_error.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace orrery::text::jinja {
namespace {

constexpr std::array<std::string_view, 39> kTests = {
    "odd",     "even",   "divisibleby", "defined",  "undefined", "filter", "test",    "none",
    "boolean", "false",  "true",        "integer",  "float",     "lower",  "upper",   "string",
    "mapping", "number", "sequence",    "iterable", "callable",  "sameas", "escaped", "in",
    "==",      "eq",     "equalto",     "!=",       "ne",        ">",      "gt",      "greaterthan",
    "ge",      ">=",     "<",           "lt",       "lessthan",  "<=",     "le"};
/// Filters that Jinja has and that are not supported.
constexpr std::array<std::string_view, 6> kOtherFilters = {"pprint", "random",   "striptags",
                                                           "urlize", "wordwrap", "xmlattr"};

bool is_test(std::string_view name) {
  return std::find(kTests.begin(), kTests.end(), name) != kTests.end();
}

std::string_view comparison_of(std::string_view name) {
  if (name == "eq" || name == "equalto") return "==";
  if (name == "ne") return "!=";
  if (name == "gt" || name == "greaterthan") return ">";
  if (name == "ge") return ">=";
  if (name == "lt" || name == "lessthan") return "<";
  if (name == "le") return "<=";
  return name;
}

bool remainder_is(Machine& machine, const Value& value, const Value& divisor, int64_t wanted) {
  return arithmetic(machine, "%", value, divisor) == Value(wanted);
}

bool is_same(const Value& left, const Value& right) {
  if (left.same(right)) {
    if (left.real() != nullptr ||
        (left.integer() != nullptr && (*left.integer() < -5 || *left.integer() > 256)))
      fail_unsupported("sameas of two equal numbers is not supported");
    return true;
  }
  if (left.string() != nullptr && right.string() != nullptr && *left.string() == *right.string())
    fail_unsupported("sameas of two equal texts is not supported");
  return false;
}

/// The tests without arguments that need nothing but the value.
bool test_kind(const std::string& name, const Value& value) {
  const auto* flag = value.as<bool>();
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "boolean") return flag != nullptr;
  if (name == "true") return flag != nullptr && *flag;
  if (name == "false") return flag != nullptr && !*flag;
  if (name == "integer") return value.integer() != nullptr;
  if (name == "float") return value.real() != nullptr;
  if (name == "number")
    return value.integer() != nullptr || value.real() != nullptr || flag != nullptr;
  if (name == "string") return value.string() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "iterable") return is_iterable(value);
  if (name == "sequence") {
    const bool view = value.is(SequenceKind::kKeys) || value.is(SequenceKind::kValues) ||
                      value.is(SequenceKind::kItems);
    return value.string() != nullptr || (value.items() != nullptr && !view) ||
           value.dict() != nullptr || value.is_undefined();
  }
  if (name == "callable")
    return value.callable() != nullptr || value.loop() != nullptr || value.is_undefined();
  if (name == "escaped") return value.is_markup();
  if (name == "lower" || name == "upper") return *text_predicate("is" + name, print(value));
  if (name == "filter" || name == "test") {
    if (value.is(SequenceKind::kList) || value.dict() != nullptr)
      fail("{} wants a name, not {}", name, value.kind());
    if (value.string() == nullptr) return false;
    const std::string& wanted = *value.string();
    if (name == "test") return is_test(wanted);
    return is_text_filter(wanted) || is_sequence_filter(wanted) ||
           std::find(kOtherFilters.begin(), kOtherFilters.end(), wanted) != kOtherFilters.end();
  }
  fail_unsupported("the test {} is not supported", name.substr(0, 40));
}

}  // namespace

void check_filter_name(const std::string& name) {
  if (!is_text_filter(name) && !is_sequence_filter(name))
    fail_unsupported("the filter {} is not supported", name.substr(0, 40));
}

void check_test_name(const std::string& name) {
  if (!is_test(name)) fail_unsupported("the test {} is not supported", name.substr(0, 40));
}

Value apply_filter(Machine& machine, const std::string& name, const Value& value,
                   const Arguments& arguments) {
  machine.step();
  machine.charge(value);
  machine.charge(arguments);
  Value out;
  if (apply_text_filter(machine, name, value, arguments, out))
    return machine.charged(std::move(out));
  if (apply_sequence_filter(machine, name, value, arguments, out))
    return machine.charged(std::move(out));
  fail_unsupported("the filter {} is not supported", name.substr(0, 40));
}

bool apply_test(Machine& machine, const std::string& name, const Value& value,
                const Arguments& arguments) {
  machine.step();
  check_test_name(name);
  if (name == "odd" || name == "even") {
    const Bound none(name, arguments, {});
    return remainder_is(machine, value, int64_t{2}, name == "odd" ? 1 : 0);
  }
  if (name == "divisibleby")
    return remainder_is(machine, value, Bound(name, arguments, {"num"}, 1)[0], 0);
  if (name == "sameas") return is_same(value, Bound(name, arguments, {"other"}, 1)[0]);
  if (name == "in") return contains(machine, Bound(name, arguments, {"seq"}, 1)[0], value);
  const std::string_view comparison = comparison_of(name);
  if (comparison.find_first_of("=<>!") != std::string_view::npos)
    return compare(machine, comparison, value, Bound(name, arguments, {""}, 1)[0]);
  const Bound none(name, arguments, {});
  machine.charge_all(value);
  return test_kind(name, value);
}

std::function<Value(Machine&, const Value&)> attribute_getter(const Value& attribute,
                                                              const Value& fallback) {
  List parts;
  if (attribute.string() != nullptr) {
    for (const std::string& part : text_split(*attribute.string(), ".", -1, false)) {
      const bool digits = *text_predicate("isdigit", part) && part.size() < 10;
      parts.push_back(digits ? Value(int64_t{std::stoll(part)}) : Value(part));
    }
  } else if (!attribute.is_none()) {
    parts.push_back(attribute);
  }
  return [parts, fallback](Machine& machine, const Value& value) {
    Value out = value;
    for (const Value& part : parts) {
      out = item_of(machine, out, part);
      if (out.is_undefined() && !fallback.is_none() && !fallback.is_undefined()) out = fallback;
    }
    return out;
  };
}

}  // namespace orrery::text::jinja
