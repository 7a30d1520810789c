#include "models/jinja_parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "core/error.h"
#include "models/jinja_lexer.h"

namespace orrery::jinja {
namespace {

constexpr int kMaxDepth = 100;  // of nesting; a hostile file must not exhaust the stack

// Of an expression's tree, which a chain of operators makes deep without nesting.
constexpr int kMaxTreeDepth = 500;

ExpressionPtr make(ExpressionKind kind, std::string text = {}) {
  return std::make_unique<Expression>(Expression{kind, std::move(text), {}, {}});
}

void add_child(Expression& parent, ExpressionPtr child) {
  if (child != nullptr) parent.depth = std::max(parent.depth, child->depth + 1);
  parent.children.push_back(std::move(child));
  if (parent.depth > kMaxTreeDepth) fail("an expression of more than {} operators in a row", kMaxTreeDepth);
}

template <class... Children>
ExpressionPtr make(ExpressionKind kind, std::string text, ExpressionPtr first, Children... rest) {
  ExpressionPtr node = make(kind, std::move(text));
  add_child(*node, std::move(first));
  (add_child(*node, std::move(rest)), ...);
  return node;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : tokens_(tokenize_template(text)) {}

  Block run() {
    Block block;
    const std::string end = body(block, {});
    ORRERY_CHECK(end.empty(), "tag {} ended a template", end);
    return block;
  }

 private:
  /// Counts the nesting while it lives.
  class Depth {
   public:
    explicit Depth(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxDepth) parser_.refuse("nested too deep");
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    Parser& parser_;
  };

  const Token& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  [[noreturn]] void refuse(const std::string& what) const { fail("line {}: {}", peek().line, what); }
  bool is(TokenKind kind, std::string_view text) const { return peek().kind == kind && peek().text == text; }
  bool accept(TokenKind kind, std::string_view text) {
    if (!is(kind, text)) return false;
    next();
    return true;
  }
  bool accept_operator(std::string_view text) { return accept(TokenKind::kOperator, text); }
  bool accept_word(std::string_view text) { return accept(TokenKind::kName, text); }
  void expect(TokenKind kind, std::string_view text) {
    if (!accept(kind, text))
      refuse(fmt::format("expected \"{}\", found \"{}\"", text, peek().text.substr(0, 40)));
  }
  std::string name() {
    if (peek().kind != TokenKind::kName) refuse("expected a name");
    return next().text;
  }

  // ---- statements

  /// Statements up to one of the tags in `ends`, whose name is returned and consumed (its "%}" is not), or to
  /// the end of the template where `ends` is empty.
  std::string body(Block& block, std::initializer_list<std::string_view> ends) {
    const Depth depth(*this);
    while (true) {
      const Token& token = next();
      if (token.kind == TokenKind::kText) {
        Statement& text = block.emplace_back();
        text.kind = StatementKind::kText;
        text.text = token.text;
      } else if (token.kind == TokenKind::kOutputBegin) {
        Statement& output = block.emplace_back();
        output.kind = StatementKind::kOutput;
        output.expression = expression();
        if (next().kind != TokenKind::kOutputEnd) refuse("expected }}");
      } else if (token.kind == TokenKind::kTagBegin) {
        const std::string tag = name();
        if (std::find(ends.begin(), ends.end(), tag) != ends.end()) return tag;
        block.push_back(statement(tag));
      } else if (token.kind == TokenKind::kEnd && ends.size() == 0) {
        return {};
      } else {
        refuse("a tag is not closed");
      }
    }
  }

  void end_tag() {
    if (next().kind != TokenKind::kTagEnd) refuse("expected %}");
  }

  Statement statement(const std::string& tag) {
    if (tag == "if") return if_statement();
    if (tag == "for") return for_statement();
    if (tag == "set") return set_statement();
    Statement out{};
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) refuse(tag + " outside of a loop");
      out.kind = tag == "break" ? StatementKind::kBreak : StatementKind::kContinue;
    } else if (tag == "generation") {  // marks the assistant's tokens for training; prints its body
      out.kind = StatementKind::kGroup;
      end_tag();
      body(out.body, {"endgeneration"});
    } else {
      refuse(fmt::format("the tag \"{}\" is not supported", tag.substr(0, 40)));
    }
    end_tag();
    return out;
  }

  Statement if_statement() {
    const Depth depth(*this);
    Statement out{};
    out.kind = StatementKind::kIf;
    out.expression = expression();
    end_tag();
    const std::string end = body(out.body, {"elif", "else", "endif"});
    if (end == "elif") {
      out.otherwise.push_back(if_statement());
      return out;
    }
    end_tag();
    if (end == "else") {
      body(out.otherwise, {"endif"});
      end_tag();
    }
    return out;
  }

  Statement for_statement() {
    Statement out{};
    out.kind = StatementKind::kFor;
    do {
      out.names.push_back(name());
    } while (accept_operator(","));
    expect(TokenKind::kName, "in");
    out.expression = or_expression();
    if (accept_word("if")) out.filter = or_expression();
    if (is(TokenKind::kName, "recursive")) refuse("recursive loops are not supported");
    end_tag();
    ++loops_;
    const std::string end = body(out.body, {"else", "endfor"});
    --loops_;
    end_tag();
    if (end == "else") {
      body(out.otherwise, {"endfor"});
      end_tag();
    }
    return out;
  }

  Statement set_statement() {
    Statement out{};
    out.names.push_back(name());
    if (accept_operator(".")) out.names.push_back(name());
    if (accept_operator("=")) {
      out.kind = StatementKind::kSet;
      out.expression = expression();
      end_tag();
      return out;
    }
    out.kind = StatementKind::kSetBlock;
    end_tag();
    body(out.body, {"endset"});
    end_tag();
    return out;
  }

  // ---- expressions, loosest binding first

  ExpressionPtr expression() {
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

  ExpressionPtr or_expression() {
    ExpressionPtr left = and_expression();
    while (accept_word("or")) left = make(ExpressionKind::kBinary, "or", std::move(left), and_expression());
    return left;
  }

  ExpressionPtr and_expression() {
    ExpressionPtr left = not_expression();
    while (accept_word("and")) left = make(ExpressionKind::kBinary, "and", std::move(left), not_expression());
    return left;
  }

  ExpressionPtr not_expression() {
    const Depth depth(*this);
    if (is(TokenKind::kName, "not")) {
      next();
      return make(ExpressionKind::kNot, "", not_expression());
    }
    return comparison();
  }

  ExpressionPtr comparison() {
    ExpressionPtr left = sum();
    bool compared = false;
    while (true) {
      static constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<", "<=", ">", ">="};
      const bool by_operator =
          peek().kind == TokenKind::kOperator &&
          std::find(kOperators.begin(), kOperators.end(), peek().text) != kOperators.end();
      const bool in = is(TokenKind::kName, "in");
      const bool not_in =
          is(TokenKind::kName, "not") && peek(1).kind == TokenKind::kName && peek(1).text == "in";
      if (!by_operator && !in && !not_in) return left;
      if (compared) refuse("a chain of comparisons is not supported");
      compared = true;
      if (by_operator) {
        const std::string text = next().text;
        left = make(ExpressionKind::kBinary, text, std::move(left), sum());
        continue;
      }
      next();
      if (not_in) next();
      left = make(ExpressionKind::kBinary, "in", std::move(left), sum());
      if (not_in) left = make(ExpressionKind::kNot, "", std::move(left));
    }
  }

  ExpressionPtr sum() {
    ExpressionPtr left = concatenation();
    while (is(TokenKind::kOperator, "+") || is(TokenKind::kOperator, "-")) {
      const std::string text = next().text;
      left = make(ExpressionKind::kBinary, text, std::move(left), concatenation());
    }
    return left;
  }

  ExpressionPtr concatenation() {
    ExpressionPtr left = product();
    while (accept_operator("~")) left = make(ExpressionKind::kBinary, "~", std::move(left), product());
    return left;
  }

  ExpressionPtr product() {
    ExpressionPtr left = unary();
    while (is(TokenKind::kOperator, "*") || is(TokenKind::kOperator, "//") || is(TokenKind::kOperator, "%")) {
      const std::string text = next().text;
      left = make(ExpressionKind::kBinary, text, std::move(left), unary());
    }
    return left;
  }

  ExpressionPtr unary() {
    const Depth depth(*this);
    ExpressionPtr value;
    if (accept_operator("-")) {
      value = make(ExpressionKind::kNegative, "", postfix(primary()));
    } else {
      value = postfix(primary());
    }
    return filters(std::move(value));
  }

  ExpressionPtr primary() {
    const Token& token = next();
    if (token.kind == TokenKind::kInteger) return literal(token.number);
    if (token.kind == TokenKind::kString) {
      std::string text = token.text;
      while (peek().kind == TokenKind::kString)
        text += next().text;  // as in Python, neighbours are one string
      return literal(std::move(text));
    }
    if (token.kind == TokenKind::kName) {
      if (token.text == "true" || token.text == "True") return literal(true);
      if (token.text == "false" || token.text == "False") return literal(false);
      if (token.text == "none" || token.text == "None") return literal(None{});
      return make(ExpressionKind::kName, token.text);
    }
    if (token.kind == TokenKind::kOperator && token.text == "(") {
      ExpressionPtr inner = expression();
      if (is(TokenKind::kOperator, ",")) refuse("a tuple is not supported");
      expect(TokenKind::kOperator, ")");
      return inner;
    }
    if (token.kind == TokenKind::kOperator && token.text == "[") {
      ExpressionPtr list = make(ExpressionKind::kList);
      while (!accept_operator("]")) {
        add_child(*list, expression());
        if (!is(TokenKind::kOperator, "]")) expect(TokenKind::kOperator, ",");
      }
      return list;
    }
    if (token.kind == TokenKind::kOperator && token.text == "{") {
      ExpressionPtr dict = make(ExpressionKind::kDict);
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

  template <class T>
  ExpressionPtr literal(T value) {
    ExpressionPtr node = make(ExpressionKind::kLiteral);
    node->value = Value(std::move(value));
    return node;
  }

  ExpressionPtr postfix(ExpressionPtr value) {
    while (true) {
      if (accept_operator(".")) {
        value = make(ExpressionKind::kAttribute, name(), std::move(value));
      } else if (accept_operator("[")) {
        value = subscript(std::move(value));
      } else if (accept_operator("(")) {
        value = make(ExpressionKind::kCall, "", std::move(value));
        arguments(*value);
      } else {
        return value;
      }
    }
  }

  ExpressionPtr subscript(ExpressionPtr value) {
    std::array<ExpressionPtr, 3> parts;
    size_t count = 0;
    while (!accept_operator("]")) {
      if (accept_operator(":")) {
        if (++count > 2) refuse("a slice of more than three parts");
      } else {
        if (parts.at(count) != nullptr) refuse("expected ]");
        parts.at(count) = expression();
      }
    }
    if (count == 0) {
      if (parts[0] == nullptr) refuse("an empty subscript");
      return make(ExpressionKind::kItem, "", std::move(value), std::move(parts[0]));
    }
    return make(ExpressionKind::kSlice, "", std::move(value), std::move(parts[0]), std::move(parts[1]),
                std::move(parts[2]));
  }

  /// Arguments up to and with the closing bracket.
  void arguments(Expression& call) {
    while (!accept_operator(")")) {
      if (peek().kind == TokenKind::kName && peek(1).kind == TokenKind::kOperator && peek(1).text == "=") {
        const std::string keyword = name();
        next();
        add_child(call, make(ExpressionKind::kKeyword, keyword, expression()));
      } else {
        add_child(call, expression());
      }
      if (!is(TokenKind::kOperator, ")")) expect(TokenKind::kOperator, ",");
    }
  }

  ExpressionPtr filters(ExpressionPtr value) {
    while (true) {
      if (accept_operator("|")) {
        value = make(ExpressionKind::kFilter, name(), std::move(value));
        if (accept_operator("(")) arguments(*value);
      } else if (accept_word("is")) {
        const bool negated = accept_word("not");
        value = make(ExpressionKind::kTest, name(), std::move(value));
        if (accept_operator("(")) arguments(*value);
        if (negated) value = make(ExpressionKind::kNot, "", std::move(value));
      } else {
        return value;
      }
    }
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view text) { return Parser(text).run(); }

}  // namespace orrery::jinja
