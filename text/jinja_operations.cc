#include "text/jinja_operations.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/span.h"
#include "text/jinja_error.h"
#include "text/jinja_format.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"
#include "text/tokenizer_utf8.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kExactReal = int64_t{1} << 53;

[[noreturn]] void no_operation(std::string_view operation, const Value& left, const Value& right) {
  fail("{} {} {}", left.kind(), operation, right.kind());
}

Value real_arithmetic(std::string_view operation, double left, double right) {
  if (operation == "+") return left + right;
  if (operation == "-") return left - right;
  if (operation == "*") return left * right;
  if (operation == "**") {
    const double result = std::pow(left, right);
    if (left == 0 && right < 0) fail("0.0 to the power of {}", right);
    if (left < 0 && right != std::floor(right))
      fail_unsupported("a root of a negative number is not supported");
    if (std::isinf(result) && !std::isinf(left) && !std::isinf(right))
      fail("a number that is too large");
    return result;
  }
  if (right == 0) fail("division by 0");
  if (operation == "/") return left / right;
  // These are the steps of CPython's float divmod.
  double mod = std::fmod(left, right);
  double div = (left - mod) / right;
  if (mod != 0) {
    if ((right < 0) != (mod < 0)) {
      mod += right;
      div -= 1;
    }
  } else {
    mod = std::copysign(0.0, right);
  }
  if (operation == "%") return mod;
  if (div == 0) return std::copysign(0.0, left / right);
  const double down = std::floor(div);
  return div - down > 0.5 ? down + 1 : down;
}

Value whole_arithmetic(std::string_view operation, int64_t left, int64_t right) {
  int64_t result = 0;
  bool overflow = false;
  if (operation == "+") {
    overflow = __builtin_add_overflow(left, right, &result);
  } else if (operation == "-") {
    overflow = __builtin_sub_overflow(left, right, &result);
  } else if (operation == "*") {
    overflow = __builtin_mul_overflow(left, right, &result);
  } else if (operation == "**") {
    if (right < 0) {
      if (left == 0) fail("0 to the power of {}", right);
      return std::pow(left, right);
    }
    result = 1;
    if (left == 0 || left == 1) return right == 0 ? int64_t{1} : left;
    if (left == -1) return right % 2 == 0 ? int64_t{1} : int64_t{-1};
    for (int64_t i = 0; i < right && !overflow; ++i)
      overflow = __builtin_mul_overflow(result, left, &result);
  } else {
    if (right == 0) fail("division by 0");
    if (operation == "/") {
      if (std::abs(left) > kExactReal || std::abs(right) > kExactReal)
        fail_unsupported("dividing numbers above 2^53 is not supported");
      return real_arithmetic(operation, left, right);
    }
    if (right == -1) {
      if (operation == "%") return int64_t{0};
      overflow = __builtin_sub_overflow(int64_t{0}, left, &result);
    } else {
      // Python rounds down, C++ rounds towards zero.
      const int64_t remainder = left % right;
      const bool adjust = remainder != 0 && (remainder < 0) != (right < 0);
      result =
          operation == "//" ? left / right - (adjust ? 1 : 0) : remainder + (adjust ? right : 0);
    }
  }
  if (overflow) fail("a number that is too large");
  return result;
}

Value add(const Value& left, const Value& right) {
  if (left.string() != nullptr && right.string() != nullptr) {
    check_text_size(left.string()->size() + right.string()->size());
    if (left.is_markup() || right.is_markup()) {
      return Value::markup((left.is_markup() ? *left.string() : text_escape(*left.string())) +
                           (right.is_markup() ? *right.string() : text_escape(*right.string())));
    }
    return *left.string() + *right.string();
  }
  const bool lists = left.is(SequenceKind::kList) && right.is(SequenceKind::kList);
  const auto is_tuple = [](const Value& v) {
    return v.is(SequenceKind::kTuple) || v.is(SequenceKind::kGroup);
  };
  if (lists || (is_tuple(left) && is_tuple(right))) {
    check_list_size(left.items()->size() + right.items()->size());
    List items = *left.items();
    items.insert(items.end(), right.items()->begin(), right.items()->end());
    return Value::sequence(lists ? SequenceKind::kList : SequenceKind::kTuple, std::move(items));
  }
  no_operation("+", left, right);
}

/// Repeats a text, list or tuple. False when the operands are of other kinds.
bool repeat(const Value& what, const Value& count, Value& out) {
  int64_t times = 0;
  if (!count.whole(times)) return false;
  if (what.string() != nullptr) {
    out = text_repeat(*what.string(), times);
    if (what.is_markup()) out = Value::markup(*out.string());
    return true;
  }
  const bool list = what.is(SequenceKind::kList);
  if (!list && !what.is(SequenceKind::kTuple)) return false;
  List items;
  if (times > 0 && !what.items()->empty()) {
    if (times > (1 << 20)) fail("a list of more than {} items, which is too large", 1 << 20);
    check_list_size(std::ssize(*what.items()) * times);
    for (int64_t i = 0; i < times; ++i)
      items.insert(items.end(), what.items()->begin(), what.items()->end());
  }
  out = Value::sequence(list ? SequenceKind::kList : SequenceKind::kTuple, std::move(items));
  return true;
}

void refuse_undefined(const Value& value) {
  if (const auto* nothing = value.as<Undefined>())
    fail("{}", nothing->reason == nullptr ? "an undefined value is used" : *nothing->reason);
}

/// -1, 0 or 1 for less, equal or greater; 2 where a NaN has no order.
int order(double left, double right) {
  return left < right ? -1 : left > right ? 1 : left == right ? 0 : 2;
}

bool ordered(std::string_view operation, const Value& left, const Value& right) {
  const auto holds = [&](int sign) {
    if (sign == 2) return false;
    return operation == "<"    ? sign < 0
           : operation == "<=" ? sign <= 0
           : operation == ">"  ? sign > 0
                               : sign >= 0;
  };
  int64_t a = 0, b = 0;
  double x = 0, y = 0;
  if (left.whole(a) && right.whole(b)) return holds(a < b ? -1 : a > b ? 1 : 0);
  if (left.number(x) && right.number(y)) return holds(order(x, y));
  if (left.string() != nullptr && right.string() != nullptr) {
    const int sign = left.string()->compare(*right.string());
    return holds(sign < 0 ? -1 : sign > 0 ? 1 : 0);
  }
  const bool lists = left.is(SequenceKind::kList) && right.is(SequenceKind::kList);
  const auto is_tuple = [](const Value& v) {
    return v.is(SequenceKind::kTuple) || v.is(SequenceKind::kGroup);
  };
  if (lists || (is_tuple(left) && is_tuple(right))) {
    const List &these = *left.items(), &those = *right.items();
    for (size_t i = 0; i < std::min(these.size(), those.size()); ++i) {
      if (!(these[i] == those[i])) return ordered(operation, these[i], those[i]);
    }
    return holds(these.size() < those.size() ? -1 : these.size() > those.size() ? 1 : 0);
  }
  refuse_undefined(left);
  refuse_undefined(right);
  no_operation(operation, left, right);
}

}  // namespace

Value arithmetic(Machine& machine, std::string_view operation, const Value& left,
                 const Value& right) {
  // "%s" % value accepts an undefined value as any other.
  const bool fills = operation == "%" && left.string() != nullptr;
  if (!fills) {
    refuse_undefined(left);
    refuse_undefined(right);
  }
  machine.charge(left);
  machine.charge(right);
  int64_t a = 0, b = 0;
  double x = 0, y = 0;
  if (left.whole(a) && right.whole(b)) return whole_arithmetic(operation, a, b);
  if (left.number(x) && right.number(y)) return real_arithmetic(operation, x, y);
  if (operation == "+") return machine.charged(add(left, right));
  Value out;
  if (operation == "*" && (repeat(left, right, out) || repeat(right, left, out)))
    return machine.charged(out);
  if (operation == "%" && left.string() != nullptr)
    return machine.charged(format_percent(machine, left, right));
  no_operation(operation, left, right);
}

Value negative(const Value& value) {
  refuse_undefined(value);
  int64_t whole = 0;
  if (value.whole(whole)) return whole_arithmetic("-", 0, whole);
  if (value.real() != nullptr) return -*value.real();
  fail("- before {}", value.kind());
}

Value positive(const Value& value) {
  refuse_undefined(value);
  int64_t whole = 0;
  if (value.whole(whole)) return whole;
  if (value.real() != nullptr) return value;
  fail("+ before {}", value.kind());
}

bool less(const Value& left, const Value& right) { return ordered("<", left, right); }

bool compare(Machine& machine, std::string_view operation, const Value& left, const Value& right) {
  if (operation == "in") return contains(machine, right, left);
  if (operation == "notin") return !contains(machine, right, left);
  machine.charge_all(left);
  machine.charge_all(right);
  if (operation == "==") return left == right;
  if (operation == "!=") return !(left == right);
  return ordered(operation, left, right);
}

bool contains(Machine& machine, const Value& container, const Value& value) {
  machine.charge_all(value);
  if (const auto* text = container.string()) {
    if (value.string() == nullptr) fail("looking for {} in a string", value.kind());
    machine.charge_search(container, value);
    return text->find(*value.string()) != std::string::npos;
  }
  if (const Dict* dict = container.dict()) {
    machine.charge(container);
    return dict->find(value) != nullptr;
  }
  machine.charge_all(container);
  if (const List* items = container.items())
    return std::find(items->begin(), items->end(), value) != items->end();
  if (container.is_undefined()) return false;
  if (container.iterator() == nullptr) fail("looking for something in {}", container.kind());
  const auto next = iterate(machine, container);
  for (Value item; next(item);) {
    if (item == value) return true;
  }
  return false;
}

Value slice_of(Machine& machine, const Value& value, const Value& begin, const Value& end,
               const Value& step) {
  refuse_undefined(value);
  const auto* text = value.string();
  const bool view = value.is(SequenceKind::kKeys) || value.is(SequenceKind::kValues) ||
                    value.is(SequenceKind::kItems);
  const auto absent = [](const Value& part) { return part.is_none(); };
  if ((text == nullptr && value.items() == nullptr) || view) fail("a slice of {}", value.kind());
  for (const Value* part : {&begin, &end, &step}) {
    if (int64_t unused = 0; !absent(*part) && !part->whole(unused))
      fail("a slice by {}", part->kind());
  }
  machine.charge(value);
  const int64_t size = text != nullptr ? text_length(*text) : std::ssize(*value.items());
  const auto number = [](const Value& part) {
    int64_t out = 0;
    part.whole(out);
    return out;
  };
  const int64_t stride = absent(step) ? 1 : number(step);
  if (stride == 0) fail("a slice with step 0");
  // As in Python, a negative index counts from the end; then each is clamped to the
  // range that the direction allows.
  const int64_t lowest = stride < 0 ? -1 : 0, highest = stride < 0 ? size - 1 : size;
  const auto place = [&](const Value& part, int64_t fallback) {
    if (absent(part)) return fallback;
    const int64_t wanted = number(part);
    return std::clamp(wanted < 0 ? wanted + size : wanted, lowest, highest);
  };
  const int64_t first = place(begin, stride < 0 ? highest : lowest),
                last = place(end, stride < 0 ? lowest : highest);
  if (text != nullptr && stride == 1) {
    const size_t from = text_offset(*text, first);
    const size_t length =
        text_offset(std::string_view(*text).substr(from), std::max<int64_t>(last - first, 0));
    std::string part = text->substr(from, length);
    return machine.charged(value.is_markup() ? Value::markup(std::move(part))
                                             : Value(std::move(part)));
  }
  List out;
  std::string characters;
  const Array<std::string_view> all =
      text != nullptr ? text_characters(*text) : std::vector<std::string_view>();
  const auto items = text != nullptr ? Span<const Value>() : Span(*value.items());
  for (int64_t i = first; stride < 0 ? i > last : i < last; i += stride) {
    if (text != nullptr) {
      characters += all[i];
    } else {
      out.push_back(items[i]);
    }
    if (stride > size || stride < -size) break;
  }
  if (text != nullptr) return machine.charged(characters);
  const SequenceKind kind = value.sequence()->kind;
  if (kind == SequenceKind::kRange) {
    const auto& range = value.sequence()->range;
    const int64_t jump = std::clamp(stride, -size - 1, size + 1);
    return machine.charged(
        Value::range(range[0] + first * range[2], range[0] + last * range[2], range[2] * jump));
  }
  return machine.charged(
      Value::sequence(kind == SequenceKind::kGroup ? SequenceKind::kTuple : kind, std::move(out)));
}

bool is_iterable(const Value& value) {
  return value.string() != nullptr || value.items() != nullptr || value.dict() != nullptr ||
         value.is_undefined() || value.iterator() != nullptr || value.loop() != nullptr;
}

std::function<bool(Value&)> iterate(Machine& machine, const Value& value) {
  if (value.iterator() != nullptr) {
    return [&machine, value](Value& out) {
      machine.step();
      return value.iterator()->next(out);
    };
  }
  if (const auto* text = value.string()) {
    machine.charge(value);
    return [value, text, at = size_t{0}](Value& out) mutable {
      if (at >= text->size()) return false;
      const size_t length = utf8_length((*text)[at]);
      out = text->substr(at, length);
      at += length;
      return true;
    };
  }
  if (value.items() != nullptr) {
    return [value, at = size_t{0}](Value& out) mutable {
      const List& items = *value.items();
      return at < items.size() && (out = items[at++], true);
    };
  }
  if (value.dict() != nullptr) {
    return [value, at = size_t{0}](Value& out) mutable {
      const Members& members = value.dict()->members;
      return at < members.size() && (out = members[at++].first, true);
    };
  }
  if (value.is_undefined()) return [](Value&) { return false; };
  if (value.loop() != nullptr) fail_unsupported("looping over loop is not supported");
  fail("looping over {}", value.kind());
}

List items_of(Machine& machine, const Value& value) {
  if (value.items() != nullptr) {
    machine.step(value.items()->size() / 4);
    return *value.items();
  }
  List out;
  const auto next = iterate(machine, value);
  for (Value item; next(item);) {
    check_list_size(out.size() + 1);
    if (out.size() % 4 == 0) machine.step();
    out.push_back(std::move(item));
  }
  return out;
}

int64_t length_of(const Value& value) {
  if (const auto* text = value.string()) return text_length(*text);
  if (const List* items = value.items()) return std::ssize(*items);
  if (const Dict* dict = value.dict()) return std::ssize(dict->members);
  if (const Loop* loop = value.loop()) return std::ssize(loop->items);
  if (value.is_undefined()) return 0;
  fail("{} has no length", value.kind());
}

}  // namespace orrery::text::jinja
