#include "models/jinja_interpreter.h"

#include <algorithm>
#include <stdexcept>

#include "core/error.h"
#include "models/jinja_functions.h"

namespace orrery::jinja {
namespace {

// A run's work is counted in steps of some 100 ns: one for a node of the tree, and more where a node handles
// much data.
constexpr int64_t kMaxSteps = 2'000'000;
constexpr int64_t kIterationSteps = 4;
constexpr size_t kBytesPerStep = 256;
constexpr size_t kNamesPerStep = 16;
constexpr size_t kItemsPerStep = 4;
constexpr size_t kComparedPerStep = 8192;  // characters of a search
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

  void step(size_t count = 1) {
    steps_ += static_cast<int64_t>(std::min(count, static_cast<size_t>(kMaxSteps) + 1));
    if (steps_ > kMaxSteps) fail("the template does not come to an end in {} steps", kMaxSteps);
  }
  /// Before an operation goes through the characters, items or members of a value, or after one made it.
  void charge(const Value& value) {
    if (value.string() != nullptr) step(value.string()->size() / kBytesPerStep);
    if (value.list() != nullptr) step(value.list()->size() / kNamesPerStep);
    if (value.dict() != nullptr) step(value.dict()->members.size() / kNamesPerStep);
  }
  /// Before a comparison, which goes through all that is inside.
  void charge_all(const Value& value) { step(value.extent().weight / kBytesPerStep); }
  void charge(const List& values) {
    for (const Value& value : values) charge(value);
  }
  /// Before one text is looked for in another.
  void charge_search(const Value& text, const Value& wanted) {
    if (text.string() == nullptr || wanted.string() == nullptr) return;
    step(text.string()->size() * wanted.string()->size() / kComparedPerStep);
  }

  Value lookup(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      step(scope->size() / kNamesPerStep);
      for (const auto& variable : *scope) {
        if (variable.first == name) return variable.second;
      }
    }
    return {};
  }
  void assign(const std::string& name, Value value) {
    step(scopes_.back().size() / kNamesPerStep);
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
    step(text.size() / kBytesPerStep);
    if (out_.size() + text.size() > kMaxOutput) fail("the template prints more than {} bytes", kMaxOutput);
    out_ += text;
  }

  void set(const Statement& statement, Value value) {
    if (statement.names.size() == 1) return assign(statement.names[0], std::move(value));
    const Value space = lookup(statement.names[0]);
    charge(space);
    if (!space.set_member(statement.names[1], std::move(value)))
      fail("{} is no namespace", statement.names[0].substr(0, 40));
  }

  Flow loop(const Statement& statement) {
    const Value iterated = evaluate(*statement.expression);
    charge(iterated);
    List items = items_of(iterated);
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
      step(kIterationSteps);
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
    charge(item);
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
        return charged(Value::list(evaluate_all(e, 0)));
      case ExpressionKind::kDict:
        return charged(dict(e));
      case ExpressionKind::kAttribute: {
        const Value value = child(0);
        charge(value);
        return item_of(value, e.text);
      }
      case ExpressionKind::kItem: {
        const Value value = child(0);
        if (value.list() == nullptr) charge(value);
        return item_of(value, child(1));
      }
      case ExpressionKind::kSlice: {
        const Value value = child(0);
        charge(value);
        return charged(slice_of(value, optional_child(1), optional_child(2), optional_child(3)));
      }
      case ExpressionKind::kCall:
        return call(e);
      case ExpressionKind::kKeyword:
        fail("a keyword argument {} that is not supported", e.text.substr(0, 40));
      case ExpressionKind::kFilter: {
        const Value value = child(0);
        const List arguments = evaluate_all(e, 1);
        charge(value);
        charge(arguments);
        if (e.text == "replace" && !arguments.empty()) charge_search(value, arguments[0]);
        return charged(apply_filter(e.text, value, arguments));
      }
      case ExpressionKind::kTest: {
        const Value value = child(0);
        const List arguments = evaluate_all(e, 1);
        if ((e.text == "in" || e.text.starts_with("eq")) && !arguments.empty()) {
          charge_all(value);
          charge_all(arguments[0]);
          charge_search(arguments[0], value);
        }
        return apply_test(e.text, value, arguments);
      }
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
        const Value right = child(1);
        charge(left);
        charge(right);
        if (e.text == "==" || e.text == "!=" || e.text == "in") {
          charge_all(left);
          charge_all(right);
        }
        if (e.text == "in") charge_search(right, left);
        return charged(apply_binary(e.text, left, right));
      }
    }
    return {};
  }

  /// What an operation made; a list's items take memory for as long as the list is kept.
  Value charged(Value value) {
    charge(value);
    if (value.list() != nullptr) step(value.list()->size() / kItemsPerStep);
    return value;
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
      const List arguments = evaluate_all(e, 1);
      charge(object);
      charge(arguments);
      if (!arguments.empty()) charge_search(object, arguments[0]);
      return charged(call_method(object, callee.text, arguments));
    }
    if (callee.kind != ExpressionKind::kName) fail("calling something that is no function");
    if (callee.text == "namespace") {
      Members members;
      for (size_t i = 1; i < e.children.size(); ++i) {
        if (e.children[i]->kind != ExpressionKind::kKeyword) fail("namespace wants keyword arguments");
        members.emplace_back(e.children[i]->text, evaluate(*e.children[i]->children[0]));
      }
      return Value::make_namespace(std::move(members));
    }
    const List arguments = evaluate_all(e, 1);
    if (callee.text == "raise_exception") {
      fail("the template says: {}", arguments.empty() ? "" : arguments[0].print().substr(0, 200));
    }
    if (callee.text == "range") return charged(range(arguments));
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
