// Macros, and the arguments of calls (jinja_interpreter.h).
#include <algorithm>

#include "core/error.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operations.h"

namespace orrery::text::jinja {
namespace {

constexpr size_t kMaxArguments = 10'000;

}  // namespace

Value Interpreter::macro(const Statement& s, const std::string& name) {
  Scope* scope = keep(scope_);
  return Value::callable(name, [this, &s, scope, name](Machine&, const Arguments& arguments) {
    return Value(call_macro(s, find_kept(scope), name, arguments));
  });
}

std::string Interpreter::call_macro(const Statement& s, const ScopePtr& around,
                                    const std::string& name, const Arguments& arguments) {
  const Machine::Nesting nesting(machine_, kCallNesting);
  return inside(around, s.hidden, [&] {
    bind_parameters(s, name, arguments);
    return captured([&] { execute(s.body); });
  });
}

void Interpreter::bind_parameters(const Statement& s, const std::string& name,
                                  const Arguments& arguments) {
  const size_t count = s.parameters.size();
  std::vector<std::pair<std::string, Value>> keywords = arguments.keywords;
  const auto take = [&](const std::string& wanted, Value& out) {
    const auto found = std::find_if(keywords.begin(), keywords.end(),
                                    [&](const auto& keyword) { return keyword.first == wanted; });
    if (found == keywords.end()) return false;
    out = found->second;
    keywords.erase(found);
    return true;
  };
  bool explicit_caller = false;
  std::vector<bool> given(count);
  for (size_t i = 0; i < count; ++i) {
    const std::string& parameter = s.parameters[i].name;
    explicit_caller = explicit_caller || parameter == "caller";
    Value value;
    given[i] = true;
    if (i < arguments.positional.size()) {
      value = arguments.positional[i];
    } else if (!take(parameter, value)) {
      given[i] = false;
      value = Value::undefined("parameter " + parameter.substr(0, 60) + " was not provided");
    }
    assign(parameter, value);
  }
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = s.parameters[i];
    if (!given[i] && parameter.fallback != nullptr)
      assign(parameter.name, evaluate(*parameter.fallback));
  }
  if (s.takes_caller && !explicit_caller) {
    Value caller = Value::undefined("no caller is defined");
    take("caller", caller);
    assign("caller", caller);
  }
  if (s.takes_kwargs) {
    Members members;
    for (const auto& [keyword, value] : keywords) members.emplace_back(Value(keyword), value);
    assign("kwargs", Value::dict(std::move(members)));
  } else if (!keywords.empty()) {
    fail("the macro {} takes no argument {}", name, keywords[0].first.substr(0, 40));
  }
  const bool more = arguments.positional.size() > count;
  if (s.takes_varargs) {
    assign("varargs",
           Value::tuple(more ? List(arguments.positional.begin() + std::ssize(s.parameters),
                                    arguments.positional.end())
                             : List()));
  } else if (more) {
    fail("the macro {} takes {} arguments, not {}", name, count, arguments.positional.size());
  }
}

Arguments Interpreter::arguments_of(const Expression& e) {
  Arguments out;
  for (size_t i = 0; i < e.names.size(); ++i) {
    const std::string& name = e.names[i];
    Value value = evaluate(*e.children[i + 1]);
    if (name.empty()) {
      out.positional.push_back(std::move(value));
    } else if (name == "*") {
      const List items = items_of(machine_, value);
      out.positional.insert(out.positional.end(), items.begin(), items.end());
    } else if (name == "**") {
      if (value.dict() == nullptr) fail("** wants a dict, not {}", value.kind());
      for (const auto& [key, member] : value.dict()->members) {
        if (key.string() == nullptr) fail("** wants names that are strings");
        add_keyword(out, *key.string(), member);
      }
    } else {
      add_keyword(out, name, std::move(value));
    }
    if (out.positional.size() + out.keywords.size() > kMaxArguments)
      fail("a call of too many arguments");
  }
  return out;
}

void Interpreter::add_keyword(Arguments& arguments, const std::string& name, Value value) {
  machine_.step(arguments.keywords.size() / kNamesPerStep);
  for (const auto& [other, unused] : arguments.keywords) {
    if (other == name) fail("the argument {} is given twice", name.substr(0, 40));
  }
  arguments.keywords.emplace_back(name, std::move(value));
}

Value Interpreter::call(const Expression& e, std::optional<Value> caller) {
  const Expression& callee = *e.children[0];
  const auto arguments = [&] {
    Arguments out = arguments_of(e);
    if (caller) add_keyword(out, "caller", *caller);
    return out;
  };
  if (callee.kind != ExpressionKind::kAttribute) {
    const Value function = evaluate(callee);
    return call_value(machine_, function, arguments());
  }
  const Value object = evaluate(*callee.children[0]);
  if (has_method(object, callee.text))
    return call_method(machine_, object, callee.text, arguments());
  const Value function = attribute_of(machine_, object, callee.text);
  return call_value(machine_, function, arguments());
}

}  // namespace orrery::text::jinja
