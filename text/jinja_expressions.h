// The expressions of the template language (jinja_parser.h). Internal to
// chat_template.h.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"

namespace orrery::text::jinja {

/// Makes a node without children.
ExpressionPtr make_expression(ExpressionKind kind, std::string text = {});
/// Adds a child. Throws Error for a tree that is too deep for recursion.
void add_child(Expression& parent, ExpressionPtr child);

/// Parses the tokens of a template. All members throw Error with the line.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::string_view text) : tokens_(tokenize_template(text)) {}

 protected:
  /// Counts the nesting while it lives.
  class Depth {
   public:
    explicit Depth(ExpressionParser& parser);
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;
    Depth& operator=(const Depth&) = delete;

   private:
    ExpressionParser& parser_;
  };

  const Token& peek(size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  [[noreturn]] void refuse(const std::string& what) const {
    fail("line {}: {}", peek().line, what);
  }
  bool is(TokenKind kind, std::string_view text) const {
    return peek().kind == kind && peek().text == text;
  }
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

  // ---- targets
  ExpressionPtr target(bool namespaces, std::string_view end_word);
  ExpressionPtr one_target(bool namespaces);

  // ---- expressions, loosest binding first
  /// One expression, or several with commas between them.
  ExpressionPtr tuple(std::string_view end_word, bool conditional);
  ExpressionPtr expression();
  ExpressionPtr or_expression();
  ExpressionPtr and_expression();
  ExpressionPtr not_expression();
  /// Consumes and returns the operator of a comparison; empty when none stands here.
  std::string comparison_operator();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters);
  ExpressionPtr primary();
  ExpressionPtr postfix(ExpressionPtr value);
  ExpressionPtr subscript(ExpressionPtr value);
  ExpressionPtr call(ExpressionPtr callee);
  /// Parses arguments from the opening to the closing bracket.
  void arguments(Expression& call);
  /// The name of a filter or a test. Names of extensions may have dots.
  std::string dotted_name();
  /// Parses filters in a row. With `begins`, the first one has no | before it.
  ExpressionPtr filter_chain(ExpressionPtr value, bool begins);
  ExpressionPtr filters_and_tests(ExpressionPtr value);
  ExpressionPtr test(ExpressionPtr value);

 private:
  /// Adds the line to an Error that `check` throws.
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
};

}  // namespace orrery::text::jinja
