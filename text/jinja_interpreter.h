// Runs a parsed chat template. Internal to chat_template.h. The class has three files:
// jinja_interpreter.cc for names and statements, jinja_macros.cc for macros and calls,
// jinja_evaluation.cc for expressions.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_machine.h"
#include "text/jinja_parser.h"
#include "text/jinja_value.h"

namespace orrery::text::jinja {

/// One run of one template, which must outlive it. Not thread-safe.
class Interpreter {
 public:
  explicit Interpreter(std::vector<std::pair<std::string, Value>> variables)
      : scope_(std::make_shared<Scope>(Scope{nullptr, std::move(variables)})) {}

  /// The text that `root` prints; to be called once. Errors as run_template.
  std::string run(const Statement& root);

 private:
  /// What follows a statement: the next one, or the loop's end or next iteration.
  enum class Flow { kNext, kBreak, kContinue };

  struct Scope;
  using ScopePtr = std::shared_ptr<Scope>;
  struct Scope {
    ScopePtr parent;
    std::vector<std::pair<std::string, Value>> names;
  };

  static constexpr size_t kNamesPerStep = 16;
  static constexpr int kCallNesting = 10;

  /// Does something in a new scope inside `parent`, in which the names of `hidden` are
  /// undefined.
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

  /// The text that `something` prints, which the output then lacks.
  template <class Do>
  std::string captured(const Do& something) {
    std::string outer;
    outer.swap(out_);
    something();
    outer.swap(out_);
    return outer;
  }

  /// Keeps a scope alive until the run ends, for a macro or a recursive loop that looks
  /// into it when it is called. The callable holds no share of its own, because the
  /// scope may hold the callable.
  Scope* keep(const ScopePtr& scope) {
    if (kept_.empty() || kept_.back() != scope) kept_.push_back(scope);
    return scope.get();
  }
  static ScopePtr find_kept(Scope* scope) { return {ScopePtr(), scope}; }

  Value lookup(const std::string& name);
  void assign(const std::string& name, Value value);
  void assign(const Expression& target, const Value& value);

  Flow execute(const Block& block);
  Flow execute(const Statement& s);
  void print_text(const std::string& text);
  void print_value(const Value& value);
  /// Runs a block whose text is set, or printed, after its filters.
  Flow captured_statement(const Statement& s);
  /// A chain of filters whose innermost value is given.
  Value filtered(const Expression& filter, const Value& value);
  Flow with_statement(const Statement& s);
  Flow for_statement(const Statement& s);
  List loop_items(const Statement& s, const ScopePtr& around, const Value& iterated);
  Flow loop(const Statement& s, const ScopePtr& around, const Value& iterated, int64_t depth0);

  Value macro(const Statement& s, const std::string& name);
  std::string call_macro(const Statement& s, const ScopePtr& around, const std::string& name,
                         const Arguments& arguments);
  /// Assigns the parameters of a macro in the current scope.
  void bind_parameters(const Statement& s, const std::string& name, const Arguments& arguments);
  Arguments arguments_of(const Expression& e);
  void add_keyword(Arguments& arguments, const std::string& name, Value value);
  Value call(const Expression& e, std::optional<Value> caller);

  Value evaluate(const Expression& e);
  /// Evaluates the kinds that have operands: kNot to kConditional.
  Value operation(const Expression& e);
  List all_children(const Expression& e);
  Value dict(const Expression& e);
  Value slice(const Expression& e);
  Value concatenated(const Expression& e);
  Value comparison(const Expression& e);

  Machine machine_;
  ScopePtr scope_;
  std::vector<ScopePtr> kept_;
  std::string out_;
};

/// The text that the template prints with these variables. Scopes, truth and errors are
/// Jinja's; an undefined value prints as nothing and fails when it is used further.
/// Throws Error for what the template raises, for wrong kinds, for what is not
/// supported, and when a run takes more steps than any honest template.
std::string run_template(const Statement& root,
                         std::vector<std::pair<std::string, Value>> variables);

}  // namespace orrery::text::jinja
