#include "text/jinja_interpreter.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/error.h"
#include "text/jinja_filters.h"
#include "text/jinja_machine.h"
#include "text/jinja_operations.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace orrery::text::jinja {
namespace {

constexpr int64_t kIterationSteps = 4;
constexpr size_t kNamesPerStep = 16;
constexpr size_t kMaxOutput = size_t{1} << 26;
constexpr int kCallNesting = 10;
constexpr size_t kMaxArguments = 10'000;

enum class Flow { kNext, kBreak, kContinue };

struct Scope;
using ScopePtr = std::shared_ptr<Scope>;
struct Scope {
  ScopePtr parent;
  std::vector<std::pair<std::string, Value>> names;
};

class Interpreter {
 public:
  explicit Interpreter(std::vector<std::pair<std::string, Value>> variables)
      : scope_(std::make_shared<Scope>(Scope{nullptr, std::move(variables)})) {}

 private:
  /// Does something in a new scope inside `parent`, in which some names are undefined.
  template <class Do>
  auto inside(const ScopePtr& parent, const std::vector<std::string>& hidden, const Do& something) {
    class Restore {
     public:
      Restore(ScopePtr& scope, ScopePtr inner)
          : scope_(scope), outer_(std::exchange(scope, std::move(inner))) {}
      ~Restore() { scope_ = std::move(outer_); }
      Restore(const Restore&) = delete;
      Restore& operator=(const Restore&) = delete;

     private:
      ScopePtr& scope_;
      ScopePtr outer_;
    };
    const Restore restore(scope_, std::make_shared<Scope>(Scope{parent, {}}));
    for (const std::string& name : hidden)
      scope_->names.emplace_back(name, Value::undefined(name.substr(0, 60) + " is undefined"));
    return something();
  }

  // ---- names

  Value lookup(const std::string& name) {
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

  void assign(const std::string& name, Value value) {
    machine_.step(scope_->names.size() / kNamesPerStep);
    for (auto& variable : scope_->names) {
      if (variable.first == name) {
        variable.second = std::move(value);
        return;
      }
    }
    scope_->names.emplace_back(name, std::move(value));
  }

  void assign(const Expression& target, const Value& value) {
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

  /// What is printed meanwhile, instead of in the output.
  template <class Do>
  std::string captured(const Do& something) {
    std::string outer;
    outer.swap(out_);
    something();
    outer.swap(out_);
    return outer;
  }

  // ---- statements

  Flow execute(const Block& block) {
    for (const Statement& statement : block) {
      const Flow flow = execute(statement);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow execute(const Statement& s) {
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

  void print_text(const std::string& text) {
    machine_.charge_bytes(text.size());
    if (out_.size() + text.size() > kMaxOutput)
      fail("the template prints more than {} bytes", kMaxOutput);
    out_ += text;
  }

  void print_value(const Value& value) {
    machine_.charge_all(value);
    print_text(print(value));
  }

  /// A block whose text is set, or printed, after its filters.
  Flow captured_statement(const Statement& s) {
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

  /// A chain of filters whose innermost value is given.
  Value filtered(const Expression& filter, const Value& value) {
    const Value inner =
        filter.children[0] == nullptr ? value : filtered(*filter.children[0], value);
    return apply_filter(machine_, filter.text, inner, arguments_of(filter));
  }

  Flow with_statement(const Statement& s) {
    List values;
    for (const Parameter& parameter : s.parameters) values.push_back(evaluate(*parameter.fallback));
    return inside(scope_, s.hidden, [&] {
      for (size_t i = 0; i < values.size(); ++i) assign(*s.parameters[i].target, values[i]);
      return execute(s.body);
    });
  }

  // ---- loops

  Flow for_statement(const Statement& s) {
    const Value iterated = evaluate(*s.expression);
    if (!s.recursive) return loop(s, scope_, iterated, 0);
    print_text(captured([&] { loop(s, scope_, iterated, 0); }));
    return Flow::kNext;
  }

  List loop_items(const Statement& s, const ScopePtr& around, const Value& iterated) {
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

  Flow loop(const Statement& s, const ScopePtr& around, const Value& iterated, int64_t depth0) {
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
      const Flow flow =
          inside(around, s.hidden, [&] {  // what an iteration sets is gone in the next one
            assign(*s.target, item);
            assign("loop", Value(state));
            return execute(s.body);
          });
      if (flow == Flow::kBreak) break;
      finished_one = finished_one || flow == Flow::kNext;
    }
    // As in Jinja: also when every iteration was left by break or continue.
    if (!finished_one && !s.otherwise.empty())
      return inside(around, s.hidden_otherwise, [&] { return execute(s.otherwise); });
    return Flow::kNext;
  }

  // ---- macros

  /// Keeps a scope to the end of the run: what is called later looks into it, and holds
  /// no share in it, because the scope may hold what is called.
  Scope* keep(const ScopePtr& scope) {
    if (kept_.empty() || kept_.back() != scope) kept_.push_back(scope);
    return scope.get();
  }
  static ScopePtr find_kept(Scope* scope) { return {ScopePtr(), scope}; }

  Value macro(const Statement& s, const std::string& name) {
    Scope* scope = keep(scope_);
    return Value::callable(name, [this, &s, scope, name](Machine&, const Arguments& arguments) {
      return Value(call_macro(s, find_kept(scope), name, arguments));
    });
  }

  std::string call_macro(const Statement& s, const ScopePtr& around, const std::string& name,
                         const Arguments& arguments) {
    const Machine::Nesting nesting(machine_, kCallNesting);
    return inside(around, s.hidden, [&] {
      const size_t count = s.parameters.size();
      std::vector<std::pair<std::string, Value>> keywords = arguments.keywords;
      const auto take = [&](const std::string& wanted, Value& out) {
        const auto found = std::find_if(keywords.begin(), keywords.end(), [&](const auto& keyword) {
          return keyword.first == wanted;
        });
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
      return captured([&] { execute(s.body); });
    });
  }

  // ---- expressions

  Value evaluate(const Expression& e) {
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
      case ExpressionKind::kMember:
        break;
    }
    return {};
  }

  List all_children(const Expression& e) {
    List out;
    for (const ExpressionPtr& child : e.children) out.push_back(evaluate(*child));
    return out;
  }

  Value dict(const Expression& e) {
    Members members;
    for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
      Value key = evaluate(*e.children[i]);
      members.emplace_back(std::move(key), evaluate(*e.children[i + 1]));
    }
    return machine_.charged(Value::dict(std::move(members)));
  }

  Value slice(const Expression& e) {
    const Value value = evaluate(*e.children[0]);
    std::array<Value, 3> parts;
    for (size_t i = 0; i < parts.size(); ++i)
      parts[i] = e.children[i + 1] == nullptr ? Value(None{}) : evaluate(*e.children[i + 1]);
    return slice_of(machine_, value, parts[0], parts[1], parts[2]);
  }

  Value concatenated(const Expression& e) {
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

  Value comparison(const Expression& e) {
    Value left = evaluate(*e.children[0]);
    for (size_t i = 0; i < e.names.size(); ++i) {
      Value right = evaluate(*e.children[i + 1]);
      if (!compare(machine_, e.names[i], left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Arguments arguments_of(const Expression& e) {
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

  void add_keyword(Arguments& arguments, const std::string& name, Value value) {
    machine_.step(arguments.keywords.size() / kNamesPerStep);
    for (const auto& [other, unused] : arguments.keywords) {
      if (other == name) fail("the argument {} is given twice", name.substr(0, 40));
    }
    arguments.keywords.emplace_back(name, std::move(value));
  }

  Value call(const Expression& e, std::optional<Value> caller) {
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

 public:
  std::string run(const Statement& root) {
    inside(scope_, root.hidden, [&] { return execute(root.body); });
    return std::move(out_);
  }

 private:
  Machine machine_;
  ScopePtr scope_;
  std::vector<ScopePtr> kept_;
  std::string out_;
};

}  // namespace

std::string run_template(const Statement& root,
                         std::vector<std::pair<std::string, Value>> variables) {
  return Interpreter(std::move(variables)).run(root);
}

}  // namespace orrery::text::jinja
