#include "models/jinja_interpreter.h"

#include <stdexcept>

#include "core/error.h"
#include "models/jinja_functions.h"

namespace orrery::jinja {
namespace {

constexpr int64_t kMaxSteps = 2'000'000;
constexpr size_t kMaxOutput = size_t{1} << 26;

enum class Flow { kNext, kBreak, kContinue };

class Interpreter {
 public:
  explicit Interpreter(std::vector<std::pair<std::string, Value>> variables) {
    scopes_.push_back(std::move(variables));
  }

  std::string run(const Block& block) {
    execute(block);
    return std::move(out_);
  }

 private:
  using Scope = std::vector<std::pair<std::string, Value>>;

  void step() {
    if (++steps_ > kMaxSteps) fail("the template does not come to an end in {} steps", kMaxSteps);
  }

  Value lookup(const std::string& name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      for (const auto& variable : *scope) {
        if (variable.first == name) return variable.second;
      }
    }
    return {};
  }
  void assign(const std::string& name, Value value) {
    for (auto& variable : scopes_.back()) {
      if (variable.first == name) {
        variable.second = std::move(value);
        return;
      }
    }
    scopes_.back().emplace_back(name, std::move(value));
  }

  // ---- statements

  Flow execute(const Block& block) {
    for (const Statement& statement : block) {
      const Flow flow = execute(statement);
      if (flow != Flow::kNext) return flow;
    }
    return Flow::kNext;
  }

  Flow execute(const Statement& statement) {
    step();
    switch (statement.kind) {
      case StatementKind::kText:
        print(statement.text);
        break;
      case StatementKind::kOutput:
        print(evaluate(*statement.expression).print());
        break;
      case StatementKind::kIf:
        return execute(evaluate(*statement.expression).truth() ? statement.body : statement.otherwise);
      case StatementKind::kFor:
        return loop(statement);
      case StatementKind::kSet:
        set(statement, evaluate(*statement.expression));
        break;
      case StatementKind::kSetBlock: {
        std::string outer;
        outer.swap(out_);
        scopes_.emplace_back();
        const Flow flow = execute(statement.body);
        scopes_.pop_back();
        outer.swap(out_);
        set(statement, std::move(outer));
        return flow;
      }
      case StatementKind::kBreak:
        return Flow::kBreak;
      case StatementKind::kContinue:
        return Flow::kContinue;
      case StatementKind::kGroup:
        return execute(statement.body);
    }
    return Flow::kNext;
  }

  void print(const std::string& text) {
    if (out_.size() + text.size() > kMaxOutput) fail("the template prints more than {} bytes", kMaxOutput);
    out_ += text;
  }

  void set(const Statement& statement, Value value) {
    if (statement.names.size() == 1) return assign(statement.names[0], std::move(value));
    const Value space = lookup(statement.names[0]);
    if (space.dict() == nullptr) fail("{} is no namespace", statement.names[0].substr(0, 40));
    space.dict()->set(statement.names[1], std::move(value));
  }

  Flow loop(const Statement& statement) {
    List items = items_of(evaluate(*statement.expression));
    if (statement.filter != nullptr) {
      List kept;
      for (Value& item : items) {
        scopes_.emplace_back();
        bind(statement, item);
        const bool keep = evaluate(*statement.filter).truth();
        scopes_.pop_back();
        if (keep) kept.push_back(std::move(item));
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      scopes_.emplace_back();
      const Flow flow = execute(statement.otherwise);
      scopes_.pop_back();
      return flow;
    }
    const int64_t size = std::ssize(items);
    for (int64_t i = 0; i < size; ++i) {
      step();
      scopes_.emplace_back();  // what an iteration sets is gone in the next one
      const auto at = [&](int64_t index) {
        return index < 0 || index >= size ? Value() : items[static_cast<size_t>(index)];
      };
      bind(statement, at(i));
      assign("loop", Value::dict({{"index", i + 1},
                                  {"index0", i},
                                  {"revindex", size - i},
                                  {"revindex0", size - i - 1},
                                  {"first", i == 0},
                                  {"last", i + 1 == size},
                                  {"length", size},
                                  {"previtem", at(i - 1)},
                                  {"nextitem", at(i + 1)}}));
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    return Flow::kNext;
  }

  void bind(const Statement& statement, const Value& item) {
    if (statement.names.size() == 1) return assign(statement.names[0], item);
    const List parts = items_of(item);
    if (parts.size() != statement.names.size())
      fail("{} values for {} loop variables", parts.size(), statement.names.size());
    for (size_t i = 0; i < parts.size(); ++i) assign(statement.names[i], parts[i]);
  }

  // ---- expressions

  Value evaluate(const Expression& e) {
    step();
    const auto child = [&](size_t i) { return evaluate(*e.children[i]); };
    const auto optional_child = [&](size_t i) {
      return e.children[i] == nullptr ? Value() : evaluate(*e.children[i]);
    };
    switch (e.kind) {
      case ExpressionKind::kLiteral:
        return e.value;
      case ExpressionKind::kName:
        return lookup(e.text);
      case ExpressionKind::kList:
        return Value::list(evaluate_all(e, 0));
      case ExpressionKind::kDict:
        return dict(e);
      case ExpressionKind::kAttribute:
        return item_of(child(0), e.text);
      case ExpressionKind::kItem:
        return item_of(child(0), child(1));
      case ExpressionKind::kSlice:
        return slice_of(child(0), optional_child(1), optional_child(2), optional_child(3));
      case ExpressionKind::kCall:
        return call(e);
      case ExpressionKind::kKeyword:
        fail("a keyword argument {} that is not supported", e.text.substr(0, 40));
      case ExpressionKind::kFilter:
        return apply_filter(e.text, child(0), evaluate_all(e, 1));
      case ExpressionKind::kTest:
        return apply_test(e.text, child(0), evaluate_all(e, 1));
      case ExpressionKind::kNot:
        return !child(0).truth();
      case ExpressionKind::kNegative:
        return apply_binary("-", int64_t{0}, child(0));
      case ExpressionKind::kConditional:
        return child(1).truth() ? child(0) : optional_child(2);
      case ExpressionKind::kBinary: {
        Value left = child(0);
        if (e.text == "and") return left.truth() ? child(1) : left;
        if (e.text == "or") return left.truth() ? left : child(1);
        return apply_binary(e.text, left, child(1));
      }
    }
    return {};
  }

  List evaluate_all(const Expression& e, size_t from) {
    List out;
    for (size_t i = from; i < e.children.size(); ++i) out.push_back(evaluate(*e.children[i]));
    return out;
  }

  Value dict(const Expression& e) {
    Members members;
    for (size_t i = 0; i + 1 < e.children.size(); i += 2) {
      const Value key = evaluate(*e.children[i]);
      if (key.string() == nullptr) fail("a dict key that is {}", key.kind());
      members.emplace_back(*key.string(), evaluate(*e.children[i + 1]));
    }
    return Value::dict(std::move(members));
  }

  Value call(const Expression& e) {
    const Expression& callee = *e.children[0];
    if (callee.kind == ExpressionKind::kAttribute) {
      const Value object = evaluate(*callee.children[0]);
      return call_method(object, callee.text, evaluate_all(e, 1));
    }
    if (callee.kind != ExpressionKind::kName) fail("calling something that is no function");
    if (callee.text == "namespace") {
      Members members;
      for (size_t i = 1; i < e.children.size(); ++i) {
        if (e.children[i]->kind != ExpressionKind::kKeyword) fail("namespace wants keyword arguments");
        members.emplace_back(e.children[i]->text, evaluate(*e.children[i]->children[0]));
      }
      return Value::dict(std::move(members));
    }
    const List arguments = evaluate_all(e, 1);
    if (callee.text == "raise_exception") {
      fail("the template says: {}", arguments.empty() ? "" : arguments[0].print().substr(0, 200));
    }
    if (callee.text == "range") return range(arguments);
    fail("the function {} is not supported", callee.text.substr(0, 40));
  }

  static Value range(const List& arguments) {
    if (arguments.empty() || arguments.size() > 2) fail("range wants one or two arguments");
    for (const Value& argument : arguments) {
      if (argument.integer() == nullptr) fail("range of {}", argument.kind());
    }
    const int64_t begin = arguments.size() == 2 ? *arguments[0].integer() : 0,
                  end = *arguments.back().integer();
    if (end > begin && (begin < -kMaxSteps || end > kMaxSteps)) fail("a range that is too long");
    List items;
    for (int64_t i = begin; i < end; ++i) items.emplace_back(i);
    return Value::list(std::move(items));
  }

  std::vector<Scope> scopes_;
  std::string out_;
  int64_t steps_ = 0;
};

}  // namespace

std::string run_template(const Block& block, std::vector<std::pair<std::string, Value>> variables) {
  try {
    return Interpreter(std::move(variables)).run(block);
  } catch (const std::invalid_argument& error) {
    fail("{}, which is not supported", error.what());
  }
}

}  // namespace orrery::jinja
