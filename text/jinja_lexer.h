// Tokens of a chat template, white space already trimmed. Internal to chat_template.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace orrery::text::jinja {

enum class TokenKind {
  kText,
  kOutputBegin,
  kOutputEnd,
  kTagBegin,
  kTagEnd,
  kName,
  kInteger,
  kFloat,
  kString,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  std::string text;  // of kText, kName, kString (unescaped), kOperator
  int64_t number;    // of kInteger
  double real;       // of kFloat
  int line;
};

/// Throws Error with the line for anything that is no token.
std::vector<Token> tokenize_template(std::string_view text);

}  // namespace orrery::text::jinja
