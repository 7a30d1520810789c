#include "text/jinja_interpreter.h"

#include "core/error.h"
#include "text/jinja_filters.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kIterationSteps = 4;
constexpr size_t kMaxOutput = size_t{1} << 26;

}  // namespace

std::string Interpreter::run(const Statement& root) {
  inside(scope_, root.hidden, [&] { return execute(root.body); });
  return std::move(out_);
}

Value Interpreter::lookup(const std::string& name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    machine_.step(scope->names.size() / kNamesPerStep);
    for (const auto& variable : scope->names) {
      if (variable.first == name) return variable.second;
    }
  }
  if (name == "strftime_now") {
    return Value::undefined(
        "strftime_now is undefined, because a prompt must be the same tomorrow: "
        "give it a date with data.chat_template_kwargs.strftime_now or --template-arg "
        "strftime_now=2025-07-26");
  }
  return global_function(name);
}

void Interpreter::assign(const std::string& name, Value value) {
  machine_.step(scope_->names.size() / kNamesPerStep);
  for (auto& variable : scope_->names) {
    if (variable.first == name) {
      variable.second = std::move(value);
      return;
    }
  }
  scope_->names.emplace_back(name, std::move(value));
}

void Interpreter::assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) return assign(target.text, value);
  if (target.kind == ExpressionKind::kMember) {
    const Value space = lookup(target.text);
    if (space.name_space() == nullptr) fail("{} is no namespace", target.text.substr(0, 40));
    if (target.names[0].starts_with('_'))
      fail("a namespace may not hold {}", target.names[0].substr(0, 40));
    return space.name_space()->set(target.names[0], value);
  }
  machine_.charge(value);
  const List parts = items_of(machine_, value);
  if (parts.size() != target.children.size())
    fail("{} values for {} loop variables", parts.size(), target.children.size());
  for (size_t i = 0; i < parts.size(); ++i) assign(*target.children[i], parts[i]);
}

Interpreter::Flow Interpreter::execute(const Block& block) {
  for (const Statement& statement : block) {
    const Flow flow = execute(statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& s) {
  const Machine::Nesting nesting(machine_, 1);
  machine_.step();
  switch (s.kind) {
    case StatementKind::kText:
      print_text(s.text);
      break;
    case StatementKind::kOutput:
      print_value(evaluate(*s.expression));
      break;
    case StatementKind::kIf:
      return execute(evaluate(*s.expression).truth() ? s.body : s.otherwise);
    case StatementKind::kFor:
      return for_statement(s);
    case StatementKind::kSet:
      assign(*s.target, evaluate(*s.expression));
      break;
    case StatementKind::kSetBlock:
    case StatementKind::kFilter:
      return captured_statement(s);
    case StatementKind::kMacro:
      assign(s.text, macro(s, s.text));
      break;
    case StatementKind::kCall:
      print_value(call(*s.expression, macro(s, "caller")));
      break;
    case StatementKind::kWith:
      return with_statement(s);
    case StatementKind::kGroup:
      return inside(scope_, s.hidden, [&] { return execute(s.body); });
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::print_text(const std::string& text) {
  machine_.charge_bytes(text.size());
  if (out_.size() + text.size() > kMaxOutput)
    fail("the template prints more than {} bytes", kMaxOutput);
  out_ += text;
}

void Interpreter::print_value(const Value& value) {
  machine_.charge_all(value);
  print_text(print(value));
}

Interpreter::Flow Interpreter::captured_statement(const Statement& s) {
  Flow flow = Flow::kNext;
  Value text;
  inside(scope_, s.hidden, [&] {
    text = captured([&] { flow = execute(s.body); });
    if (flow == Flow::kNext && s.expression != nullptr) text = filtered(*s.expression, text);
  });
  if (flow != Flow::kNext) return flow;
  if (s.kind == StatementKind::kFilter) {
    if (text.string() == nullptr) fail("a filter block that makes {}, not a text", text.kind());
    print_value(text);
  } else {
    assign(*s.target, text);
  }
  return flow;
}

Value Interpreter::filtered(const Expression& filter, const Value& value) {
  const Value inner = filter.children[0] == nullptr ? value : filtered(*filter.children[0], value);
  return apply_filter(machine_, filter.text, inner, arguments_of(filter));
}

Interpreter::Flow Interpreter::with_statement(const Statement& s) {
  List values;
  for (const Parameter& parameter : s.parameters) values.push_back(evaluate(*parameter.fallback));
  return inside(scope_, s.hidden, [&] {
    for (size_t i = 0; i < values.size(); ++i) assign(*s.parameters[i].target, values[i]);
    return execute(s.body);
  });
}

Interpreter::Flow Interpreter::for_statement(const Statement& s) {
  const Value iterated = evaluate(*s.expression);
  if (!s.recursive) return loop(s, scope_, iterated, 0);
  print_text(captured([&] { loop(s, scope_, iterated, 0); }));
  return Flow::kNext;
}

List Interpreter::loop_items(const Statement& s, const ScopePtr& around, const Value& iterated) {
  machine_.charge(iterated);
  List items = items_of(machine_, iterated);
  if (s.filter == nullptr) return items;
  List kept;
  for (Value& item : items) {
    machine_.step();
    const bool keep = inside(around, {}, [&] {
      assign(*s.target, item);
      return evaluate(*s.filter).truth();
    });
    if (keep) kept.push_back(std::move(item));
  }
  return kept;
}

Interpreter::Flow Interpreter::loop(const Statement& s, const ScopePtr& around,
                                    const Value& iterated, int64_t depth0) {
  const auto state = std::make_shared<Loop>();
  state->items = loop_items(s, around, iterated);
  for (const Value& item : state->items) check_no_namespace(item);
  state->depth0 = depth0;
  if (s.recursive) {
    Scope* scope = keep(around);
    state->recurse = [this, &s, scope, depth0](const Value& inner) {
      const Machine::Nesting nesting(machine_, kCallNesting);
      return captured([&] { loop(s, find_kept(scope), inner, depth0 + 1); });
    };
  }
  bool finished_one = false;
  for (const Value& item : state->items) {
    machine_.step(kIterationSteps);
    ++state->index0;
    // An iteration has a scope of its own: the next one does not see what it sets.
    const Flow flow = inside(around, s.hidden, [&] {
      assign(*s.target, item);
      assign("loop", Value(state));
      return execute(s.body);
    });
    if (flow == Flow::kBreak) break;
    finished_one = finished_one || flow == Flow::kNext;
  }
  // As in Jinja, `else` also runs when break or continue left every iteration.
  if (!finished_one && !s.otherwise.empty())
    return inside(around, s.hidden_otherwise, [&] { return execute(s.otherwise); });
  return Flow::kNext;
}

std::string run_template(const Statement& root,
                         std::vector<std::pair<std::string, Value>> variables) {
  return Interpreter(std::move(variables)).run(root);
}

}  // namespace orrery::text::jinja
