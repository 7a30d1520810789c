#include "models/jinja_parser.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "core/error.h"
#include "models/jinja_filters.h"
#include "models/jinja_lexer.h"
#include "models/jinja_scopes.h"

namespace orrery::jinja {
namespace {

constexpr int kMaxDepth = 200;  // of nesting; a hostile file must not exhaust the stack

// Of an expression's tree, which a chain of operators makes deep without nesting.
constexpr int kMaxTreeDepth = 500;

void add_child(Expression& parent, ExpressionPtr child) {
  if (child != nullptr) parent.depth = std::max(parent.depth, child->depth + 1);
  parent.children.push_back(std::move(child));
  if (parent.depth > kMaxTreeDepth) fail("an expression of more than {} operators in a row", kMaxTreeDepth);
}

template <class... Children>
ExpressionPtr make(ExpressionKind kind, std::string text, Children... children) {
  ExpressionPtr node = std::make_unique<Expression>();
  node->kind = kind;
  node->text = std::move(text);
  (add_child(*node, std::move(children)), ...);
  return node;
}

ExpressionPtr literal(Value value) {
  ExpressionPtr node = make(ExpressionKind::kLiteral, "");
  node->value = std::move(value);
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
        output.expression = tuple({}, /*conditional=*/true);
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
    if (tag == "macro") return macro_statement();
    if (tag == "call") return call_statement();
    if (tag == "with") return with_statement();
    Statement out{};
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) refuse(tag + " outside of a loop");
      out.kind = tag == "break" ? StatementKind::kBreak : StatementKind::kContinue;
      end_tag();
    } else if (tag == "filter") {
      out.kind = StatementKind::kFilter;
      out.expression = filter_chain(nullptr, /*begins=*/true);
      inner_body(out, "endfilter", /*is_function=*/false);
    } else if (tag == "generation") {  // marks the assistant's tokens for training; prints its body
      out.kind = StatementKind::kGroup;
      inner_body(out, "endgeneration", /*is_function=*/true);
    } else if (tag == "print") {
      out.kind = StatementKind::kOutput;
      out.expression = make(ExpressionKind::kConcatenate, "");
      while (peek().kind != TokenKind::kTagEnd) {
        if (!out.expression->children.empty()) expect(TokenKind::kOperator, ",");
        add_child(*out.expression, expression());
      }
      end_tag();
    } else {
      refuse(fmt::format("the tag \"{}\" is not supported", tag.substr(0, 40)));
    }
    return out;
  }

  /// The rest of a tag, its body and its end. The body of a function sees no loop around it.
  void inner_body(Statement& out, const char* end, bool is_function) {
    end_body_tag();
    const int loops = loops_;
    if (is_function) loops_ = 0;
    body(out.body, {end});
    loops_ = loops;
    end_tag();
  }

  /// The end of a tag that has a body; Jinja allows a colon before it.
  void end_body_tag() {
    accept_operator(":");
    end_tag();
  }

  Statement if_statement() {
    const Depth depth(*this);
    Statement out{};
    out.kind = StatementKind::kIf;
    out.expression = tuple({}, /*conditional=*/false);
    end_body_tag();
    const std::string end = body(out.body, {"elif", "else", "endif"});
    if (end == "elif") {
      out.otherwise.push_back(if_statement());
      return out;
    }
    if (end == "else") {
      end_body_tag();
      body(out.otherwise, {"endif"});
    }
    end_tag();
    return out;
  }

  Statement for_statement() {
    Statement out{};
    out.kind = StatementKind::kFor;
    out.target = target(/*namespaces=*/false, "in");
    expect(TokenKind::kName, "in");
    out.expression = tuple("recursive", /*conditional=*/false);
    if (accept_word("if")) out.filter = expression();
    out.recursive = accept_word("recursive");
    end_body_tag();
    ++loops_;
    const std::string end = body(out.body, {"else", "endfor"});
    --loops_;
    if (end == "else") {
      end_body_tag();
      body(out.otherwise, {"endfor"});
    }
    end_tag();
    return out;
  }

  Statement set_statement() {
    Statement out{};
    out.target = target(/*namespaces=*/true, {});
    if (accept_operator("=")) {
      out.kind = StatementKind::kSet;
      out.expression = tuple({}, /*conditional=*/true);
      end_tag();
      return out;
    }
    out.kind = StatementKind::kSetBlock;
    out.expression = filter_chain(nullptr, /*begins=*/false);
    inner_body(out, "endset", /*is_function=*/false);
    return out;
  }

  std::vector<Parameter> signature() {
    std::vector<Parameter> parameters;
    expect(TokenKind::kOperator, "(");
    while (!accept_operator(")")) {
      if (!parameters.empty()) expect(TokenKind::kOperator, ",");
      Parameter parameter;
      parameter.name = name();
      if (accept_operator("=")) {
        parameter.fallback = expression();
      } else if (!parameters.empty() && parameters.back().fallback != nullptr) {
        refuse("a parameter without a default behind one with a default");
      }
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  Statement macro_statement() {
    Statement out{};
    out.kind = StatementKind::kMacro;
    out.text = name();
    out.parameters = signature();
    inner_body(out, "endmacro", /*is_function=*/true);
    return out;
  }

  Statement call_statement() {
    Statement out{};
    out.kind = StatementKind::kCall;
    if (is(TokenKind::kOperator, "(")) out.parameters = signature();
    out.expression = expression();
    if (out.expression->kind != ExpressionKind::kCall) refuse("a call block wants a call");
    inner_body(out, "endcall", /*is_function=*/true);
    return out;
  }

  Statement with_statement() {
    Statement out{};
    out.kind = StatementKind::kWith;
    while (peek().kind != TokenKind::kTagEnd && !is(TokenKind::kOperator, ":")) {
      if (!out.parameters.empty()) expect(TokenKind::kOperator, ",");
      Parameter parameter;
      parameter.target = target(/*namespaces=*/false, {});
      expect(TokenKind::kOperator, "=");
      parameter.fallback = expression();
      out.parameters.push_back(std::move(parameter));
    }
    inner_body(out, "endwith", /*is_function=*/false);
    return out;
  }

  // ---- targets

  ExpressionPtr target(bool namespaces, std::string_view end_word) {
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

  ExpressionPtr one_target(bool namespaces) {
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

  // ---- expressions, loosest binding first

  /// One expression, or several with commas between them.
  ExpressionPtr tuple(std::string_view end_word, bool conditional) {
    const auto one = [&] { return conditional ? expression() : or_expression(); };
    ExpressionPtr first = one();
    if (!is(TokenKind::kOperator, ",")) return first;
    ExpressionPtr all = make(ExpressionKind::kTuple, "", std::move(first));
    while (accept_operator(",")) {
      const TokenKind kind = peek().kind;
      if (kind == TokenKind::kTagEnd || kind == TokenKind::kOutputEnd || is(TokenKind::kOperator, ")") ||
          (!end_word.empty() && is(TokenKind::kName, end_word)))
        break;
      add_child(*all, one());
    }
    return all;
  }

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
    while (accept_word("or")) left = make(ExpressionKind::kOr, "", std::move(left), and_expression());
    return left;
  }

  ExpressionPtr and_expression() {
    ExpressionPtr left = not_expression();
    while (accept_word("and")) left = make(ExpressionKind::kAnd, "", std::move(left), not_expression());
    return left;
  }

  ExpressionPtr not_expression() {
    const Depth depth(*this);
    if (accept_word("not")) return make(ExpressionKind::kNot, "", not_expression());
    return comparison();
  }

  /// The operator of a comparison, if one stands here; takes it.
  std::string comparison_operator() {
    static constexpr std::array<std::string_view, 6> kOperators = {"==", "!=", "<", "<=", ">", ">="};
    if (peek().kind == TokenKind::kOperator &&
        std::find(kOperators.begin(), kOperators.end(), peek().text) != kOperators.end())
      return next().text;
    if (accept_word("in")) return "in";
    if (!is(TokenKind::kName, "not") || peek(1).kind != TokenKind::kName || peek(1).text != "in") return "";
    next();
    next();
    return "notin";
  }

  ExpressionPtr comparison() {
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

  ExpressionPtr sum() {
    ExpressionPtr left = concatenation();
    while (is(TokenKind::kOperator, "+") || is(TokenKind::kOperator, "-")) {
      const std::string text = next().text;
      left = make(ExpressionKind::kArithmetic, text, std::move(left), concatenation());
    }
    return left;
  }

  ExpressionPtr concatenation() {
    ExpressionPtr first = product();
    if (!is(TokenKind::kOperator, "~")) return first;
    ExpressionPtr all = make(ExpressionKind::kConcatenate, "", std::move(first));
    while (accept_operator("~")) add_child(*all, product());
    return all;
  }

  ExpressionPtr product() {
    ExpressionPtr left = power();
    while (is(TokenKind::kOperator, "*") || is(TokenKind::kOperator, "/") || is(TokenKind::kOperator, "//") ||
           is(TokenKind::kOperator, "%")) {
      const std::string text = next().text;
      left = make(ExpressionKind::kArithmetic, text, std::move(left), power());
    }
    return left;
  }

  ExpressionPtr power() {
    ExpressionPtr left = unary(/*with_filters=*/true);
    while (accept_operator("**"))
      left = make(ExpressionKind::kArithmetic, "**", std::move(left), unary(/*with_filters=*/true));
    return left;
  }

  ExpressionPtr unary(bool with_filters) {
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

  ExpressionPtr primary() {
    const Depth depth(*this);
    const Token& token = next();
    if (token.kind == TokenKind::kInteger) return literal(token.number);
    if (token.kind == TokenKind::kFloat) return literal(token.real);
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

  ExpressionPtr postfix(ExpressionPtr value) {
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

  ExpressionPtr subscript(ExpressionPtr value) {
    std::array<ExpressionPtr, 3> parts;
    size_t count = 0;
    while (!accept_operator("]")) {
      if (accept_operator(":")) {
        if (++count > 2) refuse("a slice of more than three parts");
      } else if (is(TokenKind::kOperator, ",")) {
        if (count > 0 || parts[0] == nullptr) refuse("a slice of more than one dimension is not supported");
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
    return make(ExpressionKind::kSlice, "", std::move(value), std::move(parts[0]), std::move(parts[1]),
                std::move(parts[2]));
  }

  ExpressionPtr call(ExpressionPtr callee) {
    ExpressionPtr out = make(ExpressionKind::kCall, "", std::move(callee));
    arguments(*out);
    return out;
  }

  /// Arguments, from the opening to the closing bracket.
  void arguments(Expression& call) {
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
        keywords = true;
      } else {
        ensure(!star && !stars && !keywords);
      }
      call.names.push_back(argument);
      add_child(call, expression());
      if (!is(TokenKind::kOperator, ")")) expect(TokenKind::kOperator, ",");
    }
  }

  /// The name of a filter or a test; extensions may have dots in theirs.
  std::string dotted_name() {
    std::string out = name();
    while (accept_operator(".")) out += "." + name();
    return out;
  }

  /// Filters one after the other; `begins`: the first stands without its |.
  ExpressionPtr filter_chain(ExpressionPtr value, bool begins) {
    while (begins || accept_operator("|")) {
      begins = false;
      const std::string filter = dotted_name();
      check([&] { check_filter_name(filter); });
      value = make(ExpressionKind::kFilter, filter, std::move(value));
      if (is(TokenKind::kOperator, "(")) arguments(*value);
    }
    return value;
  }

  ExpressionPtr filters_and_tests(ExpressionPtr value) {
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

  ExpressionPtr test(ExpressionPtr value) {
    const bool negated = accept_word("not");
    const std::string name = dotted_name();
    check([&] { check_test_name(name); });
    value = make(ExpressionKind::kTest, name, std::move(value));
    const Token& token = peek();
    const bool word =
        token.kind == TokenKind::kName && token.text != "else" && token.text != "or" && token.text != "and";
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

  /// Adds the line to what is thrown.
  template <class Check>
  void check(const Check& check) const {
    try {
      check();
    } catch (const Error& error) {
      refuse(error.what());
    }
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

Statement parse_template(std::string_view text) {
  Statement root{};
  root.kind = StatementKind::kGroup;
  root.body = Parser(text).run();
  analyze_scopes(root);
  return root;
}

}  // namespace orrery::jinja
