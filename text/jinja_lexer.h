// The tokens of a chat template. White space around tags is trimmed already. Internal
// to chat_template.h.
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
  std::string text;  // for kText, kName, kString (unescaped) and kOperator
  int64_t number;    // for kInteger
  double real;       // for kFloat
  int line;
};

/// Throws Error with the line for anything that is not a token.
std::vector<Token> tokenize_template(std::string_view text);

}  // namespace orrery::text::jinja
