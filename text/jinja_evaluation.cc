// Expressions (jinja_interpreter.h).
#include <array>

#include "text/jinja_filters.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace orrery::text::jinja {

Value Interpreter::evaluate(const Expression& e) {
  const Machine::Nesting nesting(machine_, 1);
  machine_.step();
  const auto child = [&](size_t i) { return evaluate(*e.children[i]); };
  switch (e.kind) {
    case ExpressionKind::kLiteral:
      return e.value;
    case ExpressionKind::kName:
      return lookup(e.text);
    case ExpressionKind::kList:
      return machine_.charged(Value::list(all_children(e)));
    case ExpressionKind::kTuple:
      return machine_.charged(Value::tuple(all_children(e)));
    case ExpressionKind::kDict:
      return dict(e);
    case ExpressionKind::kAttribute:
      return attribute_of(machine_, child(0), e.text);
    case ExpressionKind::kItem: {
      const Value value = child(0);
      return item_of(machine_, value, child(1));
    }
    case ExpressionKind::kSlice:
      return slice(e);
    case ExpressionKind::kCall:
      return call(e, std::nullopt);
    case ExpressionKind::kFilter: {
      const Value value = child(0);
      return apply_filter(machine_, e.text, value, arguments_of(e));
    }
    case ExpressionKind::kTest: {
      const Value value = child(0);
      return apply_test(machine_, e.text, value, arguments_of(e));
    }
    case ExpressionKind::kNot:
    case ExpressionKind::kNegative:
    case ExpressionKind::kPositive:
    case ExpressionKind::kArithmetic:
    case ExpressionKind::kConcatenate:
    case ExpressionKind::kCompare:
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr:
    case ExpressionKind::kConditional:
      return operation(e);
    case ExpressionKind::kMember:
      break;
  }
  return {};
}

Value Interpreter::operation(const Expression& e) {
  const auto child = [&](size_t i) { return evaluate(*e.children[i]); };
  switch (e.kind) {
    case ExpressionKind::kNot:
      return !child(0).truth();
    case ExpressionKind::kNegative:
      return negative(child(0));
    case ExpressionKind::kPositive:
      return positive(child(0));
    case ExpressionKind::kArithmetic: {
      const Value left = child(0);
      return arithmetic(machine_, e.text, left, child(1));
    }
    case ExpressionKind::kConcatenate:
      return concatenated(e);
    case ExpressionKind::kCompare:
      return comparison(e);
    case ExpressionKind::kAnd: {
      Value left = child(0);
      return left.truth() ? child(1) : left;
    }
    case ExpressionKind::kOr: {
      Value left = child(0);
      return left.truth() ? left : child(1);
    }
    case ExpressionKind::kConditional:
      if (child(1).truth()) return child(0);
      return e.children[2] != nullptr ? child(2)
                                      : Value::undefined("an if without else gave no value");
    default:
      return {};
  }
}

List Interpreter::all_children(const Expression& e) {
  List out;
  for (const ExpressionPtr& child : e.children) out.push_back(evaluate(*child));
  return out;
}

Value Interpreter::dict(const Expression& e) {
  Members members;
  for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
    Value key = evaluate(*e.children[i]);
    members.emplace_back(std::move(key), evaluate(*e.children[i + 1]));
  }
  return machine_.charged(Value::dict(std::move(members)));
}

Value Interpreter::slice(const Expression& e) {
  const Value value = evaluate(*e.children[0]);
  std::array<Value, 3> parts;
  for (size_t i = 0; i < parts.size(); ++i)
    parts[i] = e.children[i + 1] == nullptr ? Value(None{}) : evaluate(*e.children[i + 1]);
  return slice_of(machine_, value, parts[0], parts[1], parts[2]);
}

Value Interpreter::concatenated(const Expression& e) {
  std::string out;
  for (const ExpressionPtr& child : e.children) {
    const Value value = evaluate(*child);
    machine_.charge_all(value);
    out += print(value);
    check_text_size(out.size());
  }
  machine_.charge_bytes(out.size());
  return out;
}

Value Interpreter::comparison(const Expression& e) {
  Value left = evaluate(*e.children[0]);
  for (size_t i = 0; i < e.names.size(); ++i) {
    Value right = evaluate(*e.children[i + 1]);
    if (!compare(machine_, e.names[i], left, right)) return false;
    left = std::move(right);
  }
  return true;
}

}  // namespace orrery::text::jinja
