#include "text/jinja_scopes.h"

#include <set>

namespace orrery::text::jinja {
namespace {

struct Frame {
  const Frame* parent = nullptr;
  std::set<std::string> known;  // names that are read or set here

  bool knows(const std::string& name) const {
    return known.contains(name) || (parent != nullptr && parent->knows(name));
  }
};

class Analyzer {
 public:
  /// Analyzes a scope whose parameters `frame` knows already. Adds the names that begin
  /// as undefined in it to `hidden`.
  void scope(Block& body, Frame& frame, std::vector<std::string>& hidden) {
    std::vector<Statement*> inner;
    visit(body, frame, &hidden, inner);
    for (Statement* statement : inner) enter(*statement, frame);
  }

 private:
  /// `hidden` is null inside an if: a name that is set there may also be the one of the
  /// scope around.
  void visit(Block& body, Frame& frame, std::vector<std::string>* hidden,
             std::vector<Statement*>& inner) {
    for (Statement& statement : body) {
      switch (statement.kind) {
        case StatementKind::kText:
        case StatementKind::kBreak:
        case StatementKind::kContinue:
          break;
        case StatementKind::kOutput:
          read(statement.expression.get(), frame);
          break;
        case StatementKind::kIf: {
          read(statement.expression.get(), frame);
          Frame branch = frame, other = frame;
          visit(statement.body, branch, nullptr, inner);
          visit(statement.otherwise, other, nullptr, inner);
          frame.known.merge(branch.known);
          frame.known.merge(other.known);
          break;
        }
        case StatementKind::kSet:
          read(statement.expression.get(), frame);
          set(*statement.target, frame, hidden);
          break;
        case StatementKind::kSetBlock:
          set(*statement.target, frame, hidden);
          inner.push_back(&statement);
          break;
        case StatementKind::kMacro:
          set_name(statement.text, frame, hidden);
          inner.push_back(&statement);
          break;
        case StatementKind::kWith:
          for (const Parameter& parameter : statement.parameters)
            read(parameter.fallback.get(), frame);
          inner.push_back(&statement);
          break;
        case StatementKind::kFor:
        case StatementKind::kCall:
        case StatementKind::kFilter:
        case StatementKind::kGroup:
          read(statement.expression.get(), frame);
          inner.push_back(&statement);
          break;
      }
    }
  }

  void enter(Statement& statement, const Frame& outer) {
    Frame frame{&outer, {}};
    std::vector<std::string> ignored;
    if (statement.target != nullptr && statement.kind == StatementKind::kFor) {
      frame.known.insert("loop");
      set(*statement.target, frame, &ignored);
    }
    for (const Parameter& parameter : statement.parameters) {
      if (parameter.target != nullptr) set(*parameter.target, frame, &ignored);
      if (!parameter.name.empty()) frame.known.insert(parameter.name);
    }
    if (statement.kind == StatementKind::kMacro || statement.kind == StatementKind::kCall) {
      for (const char* name : {"varargs", "kwargs", "caller"}) frame.known.insert(name);
      statement.takes_varargs = mentions(statement.body, "varargs");
      statement.takes_kwargs = mentions(statement.body, "kwargs");
      statement.takes_caller = mentions(statement.body, "caller");
    }
    scope(statement.body, frame, statement.hidden);
    if (!statement.otherwise.empty()) {
      Frame other{&outer, {}};
      scope(statement.otherwise, other, statement.hidden_otherwise);
    }
  }

  static void read(const Expression* expression, Frame& frame) {
    if (expression == nullptr) return;
    if (expression->kind == ExpressionKind::kName || expression->kind == ExpressionKind::kMember)
      frame.known.insert(expression->text);
    for (const ExpressionPtr& child : expression->children) read(child.get(), frame);
  }

  static void set(const Expression& target, Frame& frame, std::vector<std::string>* hidden) {
    if (target.kind == ExpressionKind::kMember) return read(&target, frame);
    if (target.kind == ExpressionKind::kName) return set_name(target.text, frame, hidden);
    for (const ExpressionPtr& child : target.children) set(*child, frame, hidden);
  }

  static void set_name(const std::string& name, Frame& frame, std::vector<std::string>* hidden) {
    if (hidden != nullptr && !frame.knows(name)) hidden->push_back(name);
    frame.known.insert(name);
  }

  static bool mentions(const Expression* expression, std::string_view name) {
    if (expression == nullptr) return false;
    if (expression->kind == ExpressionKind::kName && expression->text == name) return true;
    for (const ExpressionPtr& child : expression->children) {
      if (mentions(child.get(), name)) return true;
    }
    return false;
  }

  static bool mentions(const Block& body, std::string_view name) {
    for (const Statement& statement : body) {
      if (mentions(statement.expression.get(), name) || mentions(statement.filter.get(), name) ||
          mentions(statement.body, name) || mentions(statement.otherwise, name))
        return true;
      for (const Parameter& parameter : statement.parameters) {
        if (mentions(parameter.fallback.get(), name)) return true;
      }
    }
    return false;
  }
};

}  // namespace

void analyze_scopes(Statement& root) {
  Frame frame;
  Analyzer().scope(root.body, frame, root.hidden);
}

}  // namespace orrery::text::jinja
