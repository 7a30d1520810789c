#include "text/jinja_expressions.h"

#include <array>

#include "text/jinja_filters.h"

namespace orrery::text::jinja {
namespace {

// Brackets and operators may nest this deep, so that a hostile file does not exhaust
// the stack.
constexpr int kMaxExpressionDepth = 200;

// An expression's tree may be this deep: a chain of operators makes it deep without any
// nesting.
constexpr int kMaxTreeDepth = 500;

template <class... Children>
ExpressionPtr make(ExpressionKind kind, std::string text, Children... children) {
  ExpressionPtr node = make_expression(kind, std::move(text));
  (add_child(*node, std::move(children)), ...);
  return node;
}

ExpressionPtr literal(Value value) {
  ExpressionPtr node = make(ExpressionKind::kLiteral, "");
  node->value = std::move(value);
  return node;
}

}  // namespace

ExpressionPtr make_expression(ExpressionKind kind, std::string text) {
  ExpressionPtr node = std::make_unique<Expression>();
  node->kind = kind;
  node->text = std::move(text);
  return node;
}

void add_child(Expression& parent, ExpressionPtr child) {
  if (child != nullptr) parent.depth = std::max(parent.depth, child->depth + 1);
  parent.children.push_back(std::move(child));
  if (parent.depth > kMaxTreeDepth)
    fail("an expression of more than {} operators in a row", kMaxTreeDepth);
}

ExpressionParser::Depth::Depth(ExpressionParser& parser) : parser_(parser) {
  if (++parser_.depth_ > kMaxExpressionDepth) parser_.refuse("nested too deep");
}

ExpressionPtr ExpressionParser::target(bool namespaces, std::string_view end_word) {
  ExpressionPtr first = one_target(namespaces);
  if (!is(TokenKind::kOperator, ",")) return first;
  ExpressionPtr all = make(ExpressionKind::kTuple, "", std::move(first));
  while (accept_operator(",")) {
    if (is(TokenKind::kOperator, "=") || is(TokenKind::kOperator, ")") ||
        peek().kind == TokenKind::kTagEnd || (!end_word.empty() && is(TokenKind::kName, end_word)))
      break;
    add_child(*all, one_target(namespaces));
  }
  return all;
}

ExpressionPtr ExpressionParser::one_target(bool namespaces) {
  const Depth depth(*this);
  if (accept_operator("(")) {
    ExpressionPtr inner = target(namespaces, {});
    expect(TokenKind::kOperator, ")");
    return inner;
  }
  const std::string first = name();
  static constexpr std::array<std::string_view, 6> kConstants = {"true", "false", "none",
                                                                 "True", "False", "None"};
  if (std::find(kConstants.begin(), kConstants.end(), first) != kConstants.end())
    refuse("cannot assign to " + first);
  if (!namespaces || !accept_operator(".")) return make(ExpressionKind::kName, first);
  ExpressionPtr member = make(ExpressionKind::kMember, first);
  member->names.push_back(name());
  return member;
}

ExpressionPtr ExpressionParser::tuple(std::string_view end_word, bool conditional) {
  const auto one = [&] { return conditional ? expression() : or_expression(); };
  ExpressionPtr first = one();
  if (!is(TokenKind::kOperator, ",")) return first;
  ExpressionPtr all = make(ExpressionKind::kTuple, "", std::move(first));
  while (accept_operator(",")) {
    const TokenKind kind = peek().kind;
    if (kind == TokenKind::kTagEnd || kind == TokenKind::kOutputEnd ||
        is(TokenKind::kOperator, ")") || (!end_word.empty() && is(TokenKind::kName, end_word)))
      break;
    add_child(*all, one());
  }
  return all;
}

ExpressionPtr ExpressionParser::expression() {
  const Depth depth(*this);
  ExpressionPtr value = or_expression();
  while (accept_word("if")) {
    ExpressionPtr condition = or_expression();
    ExpressionPtr otherwise = accept_word("else") ? expression() : nullptr;
    value = make(ExpressionKind::kConditional, "", std::move(value), std::move(condition),
                 std::move(otherwise));
  }
  return value;
}

ExpressionPtr ExpressionParser::or_expression() {
  ExpressionPtr left = and_expression();
  while (accept_word("or")) left = make(ExpressionKind::kOr, "", std::move(left), and_expression());
  return left;
}

ExpressionPtr ExpressionParser::and_expression() {
  ExpressionPtr left = not_expression();
  while (accept_word("and"))
    left = make(ExpressionKind::kAnd, "", std::move(left), not_expression());
  return left;
}

ExpressionPtr ExpressionParser::not_expression() {
  const Depth depth(*this);
  if (accept_word("not")) return make(ExpressionKind::kNot, "", not_expression());
  return comparison();
}

std::string ExpressionParser::comparison_operator() {
  static constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<", "<=", ">", ">="};
  if (peek().kind == TokenKind::kOperator &&
      std::find(kOperators.begin(), kOperators.end(), peek().text) != kOperators.end())
    return next().text;
  if (accept_word("in")) return "in";
  if (!is(TokenKind::kName, "not") || peek(1).kind != TokenKind::kName || peek(1).text != "in")
    return "";
  next();
  next();
  return "notin";
}

ExpressionPtr ExpressionParser::comparison() {
  ExpressionPtr left = sum();
  std::string operation = comparison_operator();
  if (operation.empty()) return left;
  ExpressionPtr all = make(ExpressionKind::kCompare, "", std::move(left));
  for (; !operation.empty(); operation = comparison_operator()) {
    all->names.push_back(operation);
    add_child(*all, sum());
  }
  return all;
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (is(TokenKind::kOperator, "+") || is(TokenKind::kOperator, "-")) {
    const std::string text = next().text;
    left = make(ExpressionKind::kArithmetic, text, std::move(left), concatenation());
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  ExpressionPtr first = product();
  if (!is(TokenKind::kOperator, "~")) return first;
  ExpressionPtr all = make(ExpressionKind::kConcatenate, "", std::move(first));
  while (accept_operator("~")) add_child(*all, product());
  return all;
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (is(TokenKind::kOperator, "*") || is(TokenKind::kOperator, "/") ||
         is(TokenKind::kOperator, "//") || is(TokenKind::kOperator, "%")) {
    const std::string text = next().text;
    left = make(ExpressionKind::kArithmetic, text, std::move(left), power());
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary(/*with_filters=*/true);
  while (accept_operator("**"))
    left = make(ExpressionKind::kArithmetic, "**", std::move(left), unary(/*with_filters=*/true));
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Depth depth(*this);
  ExpressionPtr value;
  if (accept_operator("-")) {
    value = make(ExpressionKind::kNegative, "", unary(/*with_filters=*/false));
  } else if (accept_operator("+")) {
    value = make(ExpressionKind::kPositive, "", unary(/*with_filters=*/false));
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return with_filters ? filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr ExpressionParser::primary() {
  const Depth depth(*this);
  const Token& token = next();
  if (token.kind == TokenKind::kInteger) return literal(token.number);
  if (token.kind == TokenKind::kFloat) return literal(token.real);
  if (token.kind == TokenKind::kString) {
    std::string text = token.text;
    // Adjacent strings are one string, as in Python.
    while (peek().kind == TokenKind::kString) text += next().text;
    return literal(std::move(text));
  }
  if (token.kind == TokenKind::kName) {
    if (token.text == "true" || token.text == "True") return literal(true);
    if (token.text == "false" || token.text == "False") return literal(false);
    if (token.text == "none" || token.text == "None") return literal(None{});
    return make(ExpressionKind::kName, token.text);
  }
  if (token.kind == TokenKind::kOperator && token.text == "(") {
    if (accept_operator(")")) return make(ExpressionKind::kTuple, "");
    ExpressionPtr inner = tuple({}, /*conditional=*/true);
    expect(TokenKind::kOperator, ")");
    return inner;
  }
  if (token.kind == TokenKind::kOperator && token.text == "[") {
    ExpressionPtr list = make(ExpressionKind::kList, "");
    while (!accept_operator("]")) {
      add_child(*list, expression());
      if (!is(TokenKind::kOperator, "]")) expect(TokenKind::kOperator, ",");
    }
    return list;
  }
  if (token.kind == TokenKind::kOperator && token.text == "{") {
    ExpressionPtr dict = make(ExpressionKind::kDict, "");
    while (!accept_operator("}")) {
      add_child(*dict, expression());
      expect(TokenKind::kOperator, ":");
      add_child(*dict, expression());
      if (!is(TokenKind::kOperator, "}")) expect(TokenKind::kOperator, ",");
    }
    return dict;
  }
  refuse(fmt::format("expected a value, found \"{}\"", token.text.substr(0, 40)));
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr value) {
  while (true) {
    if (accept_operator(".")) {
      if (peek().kind == TokenKind::kInteger) {
        value = make(ExpressionKind::kItem, "", std::move(value), literal(next().number));
      } else {
        value = make(ExpressionKind::kAttribute, name(), std::move(value));
      }
    } else if (accept_operator("[")) {
      value = subscript(std::move(value));
    } else if (is(TokenKind::kOperator, "(")) {
      value = call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr value) {
  std::array<ExpressionPtr, 3> parts;
  size_t count = 0;
  while (!accept_operator("]")) {
    if (accept_operator(":")) {
      if (++count > 2) refuse("a slice of more than three parts");
    } else if (is(TokenKind::kOperator, ",")) {
      if (count > 0 || parts[0] == nullptr)
        refuse("a slice of more than one dimension is not supported");
      ExpressionPtr all = make(ExpressionKind::kTuple, "", std::move(parts[0]));
      while (accept_operator(",")) add_child(*all, expression());
      parts[0] = std::move(all);
    } else {
      if (parts.at(count) != nullptr) refuse("expected ]");
      parts.at(count) = expression();
    }
  }
  if (count == 0) {
    if (parts[0] == nullptr) parts[0] = make(ExpressionKind::kTuple, "");
    return make(ExpressionKind::kItem, "", std::move(value), std::move(parts[0]));
  }
  return make(ExpressionKind::kSlice, "", std::move(value), std::move(parts[0]),
              std::move(parts[1]), std::move(parts[2]));
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  ExpressionPtr out = make(ExpressionKind::kCall, "", std::move(callee));
  arguments(*out);
  return out;
}

void ExpressionParser::arguments(Expression& call) {
  expect(TokenKind::kOperator, "(");
  bool keywords = false, star = false, stars = false;
  const auto ensure = [&](bool good) {
    if (!good) refuse("arguments in the wrong order");
  };
  while (!accept_operator(")")) {
    std::string argument;
    if (accept_operator("*")) {
      ensure(!star && !stars);
      star = true;
      argument = "*";
    } else if (accept_operator("**")) {
      ensure(!stars);
      stars = true;
      argument = "**";
    } else if (peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator &&
               peek(1).text == "=") {
      ensure(!stars);
      argument = name();
      next();
      if (std::find(call.names.begin(), call.names.end(), argument) != call.names.end())
        refuse(argument + " is given twice");
      keywords = true;
    } else {
      ensure(!star && !stars && !keywords);
    }
    call.names.push_back(argument);
    add_child(call, expression());
    if (!is(TokenKind::kOperator, ")")) expect(TokenKind::kOperator, ",");
  }
}

std::string ExpressionParser::dotted_name() {
  std::string out = name();
  while (accept_operator(".")) out += "." + name();
  return out;
}

ExpressionPtr ExpressionParser::filter_chain(ExpressionPtr value, bool begins) {
  while (begins || accept_operator("|")) {
    begins = false;
    const std::string filter = dotted_name();
    check([&] { check_filter_name(filter); });
    value = make(ExpressionKind::kFilter, filter, std::move(value));
    if (is(TokenKind::kOperator, "(")) arguments(*value);
  }
  return value;
}

ExpressionPtr ExpressionParser::filters_and_tests(ExpressionPtr value) {
  while (true) {
    if (is(TokenKind::kOperator, "|")) {
      value = filter_chain(std::move(value), /*begins=*/false);
    } else if (accept_word("is")) {
      value = test(std::move(value));
    } else if (is(TokenKind::kOperator, "(")) {
      value = call(std::move(value));
    } else {
      return value;
    }
  }
}

ExpressionPtr ExpressionParser::test(ExpressionPtr value) {
  const bool negated = accept_word("not");
  const std::string name = dotted_name();
  check([&] { check_test_name(name); });
  value = make(ExpressionKind::kTest, name, std::move(value));
  const Token& token = peek();
  const bool word = token.kind == TokenKind::kName && token.text != "else" && token.text != "or" &&
                    token.text != "and";
  if (is(TokenKind::kOperator, "(")) {
    arguments(*value);
  } else if (word || token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
             token.kind == TokenKind::kFloat || is(TokenKind::kOperator, "[") ||
             is(TokenKind::kOperator, "{")) {
    if (is(TokenKind::kName, "is")) refuse("tests cannot be chained with is");
    value->names.emplace_back();
    add_child(*value, postfix(primary()));
  }
  return negated ? make(ExpressionKind::kNot, "", std::move(value)) : std::move(value);
}

}  // namespace orrery::text::jinja
