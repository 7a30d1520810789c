#include "text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>

#include "core/error.h"
#include "text/jinja_expressions.h"
#include "text/jinja_scopes.h"

namespace orrery::text::jinja {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Block run() {
    Block block;
    const std::string end = body(block, {});
    ORRERY_CHECK(end.empty(), "tag {} ended a template", end);
    return block;
  }

 private:
  /// Parses statements up to one of the tags in `ends`, or to the end of the template
  /// where `ends` is empty. Returns the tag's name, which is consumed; its "%}" is not.
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
    } else if (tag == "generation") {
      // It marks the assistant's tokens for training, and prints its body.
      out.kind = StatementKind::kGroup;
      inner_body(out, "endgeneration", /*is_function=*/true);
    } else if (tag == "print") {
      out.kind = StatementKind::kOutput;
      out.expression = make_expression(ExpressionKind::kConcatenate, "");
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

  /// Parses the rest of a tag, its body and its end. The body of a function does not
  /// see a loop around it.
  void inner_body(Statement& out, const char* end, bool is_function) {
    end_body_tag();
    const int loops = loops_;
    if (is_function) loops_ = 0;
    body(out.body, {end});
    loops_ = loops;
    end_tag();
  }

  /// Parses the end of a tag that has a body. Jinja allows a colon before it.
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

  /// Returns `target`, after checking that it does not assign to `loop` inside a for.
  ExpressionPtr loop_safe(ExpressionPtr target) const {
    if (inside_for_ > 0) refuse_loop(*target);
    return target;
  }

  /// Recurses as deep as targets nest, which Depth bounds.
  void refuse_loop(const Expression& target) const {
    if (target.kind == ExpressionKind::kName && target.text == "loop")
      refuse("cannot assign to loop inside of a for");
    for (const ExpressionPtr& child : target.children) refuse_loop(*child);
  }

  Statement for_statement() {
    Statement out{};
    out.kind = StatementKind::kFor;
    ++inside_for_;
    out.target = loop_safe(target(/*namespaces=*/false, "in"));
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
    --inside_for_;
    end_tag();
    return out;
  }

  Statement set_statement() {
    Statement out{};
    out.target = loop_safe(target(/*namespaces=*/true, {}));
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
      if (std::ranges::find(parameters, parameter.name, &Parameter::name) != parameters.end())
        refuse(fmt::format("the parameter {} is given twice", parameter.name.substr(0, 40)));
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

  int loops_ = 0;       // the loops around that break and continue may leave
  int inside_for_ = 0;  // the loops around, also those outside of a function
};

}  // namespace

Statement parse_template(std::string_view text) {
  Statement root{};
  root.kind = StatementKind::kGroup;
  root.body = Parser(text).run();
  analyze_scopes(root);
  return root;
}

}  // namespace orrery::text::jinja
